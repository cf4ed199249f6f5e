"""`GET /healthz`: whether this process can serve."""

from __future__ import annotations

import redis
from flask import Blueprint

from shared.connections import postgres, redis_client
from shared.errors import RedisUnavailable
from shared.settings import get_settings

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
def healthz() -> dict[str, bool]:
    """200 when Redis and Postgres answer; else 503."""
    try:
        redis_client(get_settings().require_redis_url()).ping()
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise RedisUnavailable from error
    with postgres() as connection:
        connection.execute("SELECT 1")
    return {"success": True}
