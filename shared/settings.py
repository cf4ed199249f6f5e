"""Every setting, read once from the environment into one typed, frozen object.

Names and defaults are those of the settings reference. A value that is not taken ends the process
with a sentence that says which variable is wrong, what it got and what it takes.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

import redis.asyncio
from pydantic import (
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.errors import SettingsError

_ORIGIN = r"(\*|[a-zA-Z][a-zA-Z0-9+.-]*://([\w.-]+|\[[\da-fA-F:.]+\])(:\d{1,5})?)"


class Settings(BaseSettings):
    """The settings of a process. Durations are in seconds, sizes in bytes."""

    # What a variable got may be a secret, and an error's cause is shown in tracebacks.
    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_ignore_empty=True, hide_input_in_errors=True
    )

    enable_sse_push: bool = True
    events_stream_maxlen: PositiveInt = 1000
    events_stream_ttl_seconds: PositiveInt = 604_800
    event_max_bytes: PositiveInt = 16_384
    sse_keepalive_seconds: float = Field(default=15, gt=0)
    sse_write_timeout_seconds: float = Field(default=30, gt=0)
    sse_max_concurrent_per_user: NonNegativeInt = 8
    events_replay_max_per_request: PositiveInt = 200
    events_replay_budget_requests_per_window: NonNegativeInt = 30
    events_replay_budget_window_seconds: PositiveInt = 60
    ingest_lease_seconds: PositiveInt = 30
    ingest_queue_timeout_seconds: PositiveInt = 86_400
    ingest_state_ttl_seconds: PositiveInt = 2_592_000
    ingest_max_deliveries: PositiveInt = 5
    ingest_redelivery_grace_seconds: NonNegativeInt | None = None
    upload_max_bytes: PositiveInt = 52_428_800
    upload_retention_seconds: NonNegativeInt = 604_800
    message_events_retention_days: PositiveInt = 14
    message_stale_seconds: PositiveInt = 90
    chat_producer: str = Field(default="worker.chat.extractive:produce", pattern=r"^[\w.]+:\w+$")
    chat_words_per_second: float = Field(default=12, gt=0)
    message_prune_every_seconds: PositiveInt = 3600
    redis_url: str | None = Field(default=None, pattern=r"^(rediss?|unix)://")
    database_url: str | None = Field(default=None, pattern=r"^postgres(ql)?://")
    celery_broker_url: str | None = None
    celery_result_backend: str | None = None
    redis_cluster: bool = False
    auth_type: Literal["none", "jwt", "callable"] = "none"
    allow_anonymous: bool = False
    operator_on_loopback: bool = False
    allowed_hosts: str = ""
    auth_callable: str = Field(default="", pattern=r"^([\w.]+:\w+)?$")
    jwt_secret_key: str | None = Field(default=None, min_length=32)
    jwt_jwks_url: str | None = Field(default=None, pattern=r"^https?://")
    jwt_audience: str | None = None
    jwt_issuer: str | None = None
    jwt_cookie_name: str = Field(default="eventstream_token", pattern=r"^[\w.-]+$")
    jwt_operator_claim: str = "operator"
    cors_origins: str = Field(default="", pattern=rf"^(\s*{_ORIGIN}\s*(,|$))*$")
    worker_imports: str = ""

    @field_validator("redis_url")
    @classmethod
    def _has_known_options(cls, url: str | None) -> str | None:
        """Refuses at the start what redis-py would refuse at each try to connect."""
        for package in (redis, redis.asyncio) if url else ():
            try:
                package.ConnectionPool.from_url(url).make_connection()
            except (TypeError, ValueError, redis.RedisError) as error:
                option = re.search(r"(?:argument|value for) '(\w+)'", str(error))
                what = f"the option {option[1]}" if option else "it"
                raise ValueError(f"redis-py does not take {what}") from error
        return url

    def require_redis_url(self) -> str:
        """Returns `REDIS_URL`; raises SettingsError where it is not set."""
        return self.redis_url or _missing("REDIS_URL", "redis://localhost:6379/0")

    def require_database_url(self) -> str:
        """Returns `DATABASE_URL`; raises SettingsError where it is not set."""
        return self.database_url or _missing("DATABASE_URL", "postgresql://user@localhost/app")

    def require_celery_urls(self) -> None:
        """Returns where Celery has servers that it can use; raises SettingsError else."""
        if self.redis_cluster and not (self.celery_broker_url and self.celery_result_backend):
            raise SettingsError(
                "REDIS_CLUSTER=true needs CELERY_BROKER_URL and CELERY_RESULT_BACKEND: Celery has "
                "no transport for a Redis Cluster. They take the URLs of other servers."
            )

    @property
    def publish_command(self) -> str:
        """What announces on a channel: on a cluster within the shard, `SPUBLISH`."""
        return "SPUBLISH" if self.redis_cluster else "PUBLISH"

    @property
    def broker_url(self) -> str | None:
        """The URL of Celery's broker: `CELERY_BROKER_URL`, else `REDIS_URL`."""
        return self.celery_broker_url or self.redis_url

    @property
    def result_backend(self) -> str | None:
        """The URL of Celery's result backend: `CELERY_RESULT_BACKEND`, else `REDIS_URL`."""
        return self.celery_result_backend or self.redis_url

    @property
    def worker_import_names(self) -> list[str]:
        """The module names in `WORKER_IMPORTS`."""
        return _names(self.worker_imports)

    @property
    def allowed_host_names(self) -> list[str]:
        """The host names in `ALLOWED_HOSTS`, in lower case."""
        return _names(self.allowed_hosts.lower())

    @property
    def allowed_origins(self) -> list[str]:
        """The origins in `CORS_ORIGINS`, in lower case; `*` for any."""
        return _names(self.cors_origins.lower())

    def require_jwt_secret_key(self) -> str:
        """Returns `JWT_SECRET_KEY`; raises SettingsError where it is not set."""
        if self.jwt_secret_key is None:
            raise SettingsError(
                "JWT_SECRET_KEY is not set. It takes a text of at least 32 characters, "
                "the one that the web process verifies tokens with."
            )
        return self.jwt_secret_key


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Returns this process's settings, read from the environment at the first call.

    Raises:
        SettingsError: a variable has a value that is not taken; the message names all such.
    """
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError("\n".join(_sentence(dict(e)) for e in error.errors())) from error


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _missing(variable: str, example: str) -> str:
    raise SettingsError(
        f"{variable} is not set. It takes a URL such as {example}; "
        "'eventstream dev' starts an embedded server where it is unset."
    )


_TAKES = {
    "chat_producer": "a function such as yourpackage.chat:produce",
    "auth_callable": "a callable such as yourpackage.auth:current_user",
    "cors_origins": "origins such as https://app.example.com, with commas between, or *",
    "jwt_secret_key": "at least 32 characters (RFC 7518, section 3.2)",
    "jwt_jwks_url": "a URL that starts with https:// or http://",
    "jwt_cookie_name": "letters, digits, '_', '.' and '-'",
    "redis_url": "a URL that starts with redis://, rediss:// or unix://",
    "database_url": "a URL that starts with postgresql://",
}


def _sentence(error: dict[str, object]) -> str:
    location = error["loc"]
    name = str(location[0]) if isinstance(location, tuple) and location else "a setting"
    detail = _detail(error)
    takes = _TAKES.get(name) or _takes(str(error["type"]), detail)
    got = error.get("input")
    # A key is a secret and a URL may hold a password: what it got stays out of logs.
    shown = "a value of another form" if name.endswith(("_url", "_key")) else repr(got)
    why = f" ({detail['error']})" if "error" in detail else ""
    return f"{name.upper()} is wrong: got {shown}, takes {takes}{why}."


def _detail(error: dict[str, object]) -> dict[str, object]:
    context = error.get("ctx")
    return context if isinstance(context, dict) else {}


def _takes(kind: str, detail: dict[str, object]) -> str:
    if kind.startswith("bool"):
        return "true or false"
    if kind == "literal_error":
        return str(detail.get("expected"))
    if kind == "greater_than_equal":
        return f"a number of {detail.get('ge')} or more"
    if kind == "greater_than":
        return f"a number greater than {detail.get('gt')}"
    if kind.startswith("int"):
        return "a whole number"
    if kind.startswith("float"):
        return "a number greater than 0"
    return "another value"
