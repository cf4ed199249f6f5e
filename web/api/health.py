"""`GET /healthz`: whether this process can serve."""

from __future__ import annotations

import redis
from flask import Blueprint

from shared.connections import app_redis, postgres
from shared.errors import RedisUnavailable

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
def healthz() -> dict[str, bool]:
    """200 when Redis and Postgres answer; else 503."""
    try:
        app_redis().ping()
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise RedisUnavailable from error
    with postgres() as connection:
        connection.execute("SELECT 1")
    return {"success": True}
