"""What several tests of this tier use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient

from shared.outbox import outbox
from web import create_app
from web.dispatch import _celery


@pytest.fixture
def api(
    redis_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FlaskClient]:
    """The Flask application, for whom everyone is `local` and an operator; its outbox is empty."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("ALLOW_ANONYMOUS", "true")
    monkeypatch.setenv("OPERATOR_ON_LOOPBACK", "true")
    monkeypatch.setenv("UPLOAD_MAX_BYTES", "100000")
    _celery.cache_clear()
    outbox.cache_clear()
    yield create_app().test_client()
    _celery().close()
    _celery.cache_clear()
    outbox.cache_clear()
