"""A circuit: one failure counts for all, one try a second, one success."""

from __future__ import annotations

import pytest

from shared.errors import RedisUnavailable
from web.circuit import PAUSE_SECONDS, Circuit


class Asked:
    """What a circuit guards, and its clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.tries = 0
        self.is_away = False
        self.circuit = Circuit(lambda: self.now)

    def answers(self) -> bool:
        try:
            with self.circuit.guard():
                self.tries += 1
                if self.is_away:
                    raise RedisUnavailable
        except RedisUnavailable:
            return False
        return True


def test_after_a_failure_all_fail_at_once_and_one_a_second_tries() -> None:
    asked = Asked()
    asked.is_away = True
    assert [asked.answers() for _ in range(5)] == [False] * 5
    assert asked.tries == 1
    asked.now += PAUSE_SECONDS
    assert [asked.answers() for _ in range(5)] == [False] * 5
    assert asked.tries == 2


def test_while_one_tries_again_the_others_do_not() -> None:
    asked = Asked()
    asked.is_away = True
    asked.answers()
    asked.now += PAUSE_SECONDS
    asked.is_away = False
    with asked.circuit.guard():
        assert not asked.answers()
    assert asked.answers()


def test_what_answers_again_is_asked_by_all() -> None:
    asked = Asked()
    asked.is_away = True
    asked.answers()
    asked.is_away = False
    asked.now += PAUSE_SECONDS
    assert [asked.answers() for _ in range(3)] == [True] * 3


def test_another_error_is_no_failure_of_the_server() -> None:
    asked = Asked()
    with pytest.raises(ValueError), asked.circuit.guard():
        raise ValueError
    assert asked.answers()
