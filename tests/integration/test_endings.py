"""Signals of a worker's main process, told of the attempt that they speak of."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import redis

from shared import runs
from shared.facts import Sent
from shared.runs import HEADER, RunRef
from tests.run_facts import accepted, deadline_ms, now, started, submit, types
from worker import app
from worker.endings import on_internal_error, on_revoked


@pytest.fixture
def ref(client: redis.Redis) -> RunRef:
    """A run whose task was executed once, and whose retry waits."""
    ref = accepted()
    submit(ref, started(), Sent(task="T", retries=1))
    return ref


def test_celerys_own_error_settles_the_attempt_that_it_was_in(
    client: redis.Redis, ref: RunRef
) -> None:
    task = SimpleNamespace(request=None, app=app)
    on_internal_error(sender=task, task_id="T", request={"id": "T", "retries": 0})
    assert deadline_ms(client, ref) / 1000 - now(client) > 60, "its retry is on the way"
    on_internal_error(sender=task, task_id="T", request={"id": "T", "retries": 1})
    assert deadline_ms(client, ref) / 1000 - now(client) <= runs.SETTLE_SECONDS


def test_a_message_that_expires_ends_only_the_attempt_that_it_was_of(
    client: redis.Redis, ref: RunRef
) -> None:
    request = SimpleNamespace(
        id="T", headers={HEADER: ref.to_header()}, retries=0, replaced_task_nesting=None
    )
    on_revoked(sender=None, request=request, expired=True)
    assert types(client)[-1] == "started"
    request.retries = 1
    on_revoked(sender=None, request=request, expired=True)
    assert types(client)[-1] == "failed"
