"""What an application's result backend knows of tasks, for the reaper.

A backend may be disabled, broken, or hang for minutes: what it does not tell soon is unknown.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

from celery import Celery

log = logging.getLogger(__name__)

ANSWER_SECONDS = 5.0
REST_SECONDS = 30.0  # for which a backend that hangs is not asked

_Question = tuple[str, "Future[Ending]"]
Ending = tuple[str, Any]  # a state of Celery's, and the result or the exception


class Results:
    """Asks on a thread of its own, which is left behind where the backend hangs."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._questions: SimpleQueue[_Question] | None = None
        self._rests_until = 0.0  # monotonic seconds

    def ending_of(self, task_id: str) -> Ending | None:
        """How a task ended; None where that is not known, or can't be asked."""
        if time.monotonic() < self._rests_until:
            return None
        answer: Future[Ending] = Future()
        self._ask().put((task_id, answer))
        try:
            return answer.result(ANSWER_SECONDS)
        except TimeoutError:
            log.warning("the result backend does not answer; it is not asked for a while")
            self._questions, self._rests_until = None, time.monotonic() + REST_SECONDS
        except NotImplementedError:  # there is none
            pass
        except Exception as error:  # a backend raises what it likes
            log.warning("the result backend does not tell of task %s: %r", task_id, error)
        return None

    def _ask(self) -> SimpleQueue[_Question]:
        if self._questions is None:
            self._questions = SimpleQueue()
            threading.Thread(
                target=_answer_all,
                args=(self._app, self._questions),
                name="eventstream-results",
                daemon=True,
            ).start()
        return self._questions


def _answer_all(app: Celery, questions: SimpleQueue[_Question]) -> None:
    while True:
        task_id, answer = questions.get()
        try:
            result = app.AsyncResult(task_id)
            answer.set_result((result.state, result.result))
        except Exception as error:
            answer.set_exception(error)
