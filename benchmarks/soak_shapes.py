"""Canvases of random shape, and what must become of each."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from celery import chain, chord, group

from benchmarks import soak_app
from worker.canvas import copied

DEEPEST = 2
FAILING_PERCENT = 15  # of runs
IMPLICIT_PERCENT = 20  # of runs of a shape that is one run without start_ingest


@dataclass(frozen=True, slots=True)
class Shape:
    """One run: its canvas with the ids of its tasks, how it must end, and how many these are."""

    canvas: Any
    words: str
    fails: bool
    tasks: int
    implicit: bool


class Shapes:
    """Makes shapes for one user's sources, by a random generator."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._who: tuple[str, str] = ("", "")
        self._tasks = 0
        self._failing = -1  # the number of the task that is to fail

    def make(self, user_id: str, source_id: str) -> Shape:
        """A shape; the same generator makes the same ones."""
        self._who = (user_id, source_id)
        state = self._dice.getstate()
        self._build()
        fails = self._dice.randrange(100) < FAILING_PERCENT
        implicit = self._dice.randrange(100) < IMPLICIT_PERCENT
        failing = self._dice.randrange(self._tasks) if fails else -1
        after = self._dice.getstate()
        self._dice.setstate(state)  # the same shape again, with the one that fails
        self._build(failing)
        self._dice.setstate(after)
        canvas, words = copied(self._built[0]), self._built[1]
        kind = words.partition("(")[0]
        # Without start_ingest a group is no run of its own, and only tracked tasks make one.
        implicit = implicit and kind in ("step", "retry", "replace") and not fails
        return Shape(canvas, words, fails, self._tasks, implicit)

    def _build(self, failing: int = -1) -> None:
        self._tasks, self._failing = 0, failing
        self._built = self._canvas(0)

    def _canvas(self, depth: int) -> tuple[Any, str]:
        kinds: list[Callable[[int], tuple[Any, str]]] = [self._task]
        if depth <= DEEPEST:
            kinds += [self._chain, self._group, self._chord]
            if depth == 0:
                kinds += [self._chain, self._group, self._chord]
        return self._dice.choice(kinds)(depth)

    def _task(self, depth: int) -> tuple[Any, str]:
        number, roll = self._tasks, self._dice.randrange(100)
        times, members = self._dice.randint(1, 2), self._dice.randint(2, 4)
        self._tasks += 1
        if number == self._failing:
            return soak_app.fail.si(*self._who), "fail"
        if roll < 10:
            return soak_app.retry.si(*self._who, times), f"retry({times})"
        if roll < 15:
            return soak_app.replace.si(*self._who, members), f"replace({members})"
        if roll < 35:
            return soak_app.plain.si(*self._who), "plain"
        return soak_app.step.si(*self._who), "step"

    def _several(self, depth: int, most: int) -> tuple[list[Any], str]:
        inner = [self._canvas(depth + 1) for _ in range(self._dice.randint(2, most))]
        return [canvas for canvas, _ in inner], ", ".join(words for _, words in inner)

    def _chain(self, depth: int) -> tuple[Any, str]:
        inner, words = self._several(depth, 4)
        return chain(*inner), f"chain({words})"

    def _group(self, depth: int) -> tuple[Any, str]:
        inner, words = self._several(depth, 6)
        return group(*inner), f"group({words})"

    def _chord(self, depth: int) -> tuple[Any, str]:
        inner, words = self._several(depth, 5)
        body, body_words = self._canvas(depth + 1)
        return chord(inner, body), f"chord([{words}], {body_words})"
