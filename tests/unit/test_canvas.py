"""What a canvas ends with, and what a message knows of the canvas around it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from celery import Celery, chain, chord, group

from worker.canvas import copied, finals, options_of, parts

app = Celery("canvas", broker="memory://", set_as_current=False)


@app.task(name="canvas.unit")
def work(label: str) -> None:
    """Any task."""


def s(label: str) -> Any:
    return work.si(label)


def linked(label: str, *others: str) -> Any:
    signature = s(label)
    for other in others:
        signature.link(s(other))
    return signature


def labels(canvas: Any) -> dict[str, str]:
    found = parts(canvas, linked=True)
    return {options_of(part)["task_id"]: part["args"][0] for part in found}


CANVASES = {
    "a task": (s("a"), "a"),
    "a chain": (chain(s("a"), s("b")), "b"),
    "a group at the end": (chain(s("a"), group(s("b"), s("c"))), "bc"),
    "a task after a group": (chain(s("a"), group(s("b"), s("c")), s("d")), "d"),
    "a group of a chain and a task": (group(chain(s("a"), group(s("b"), s("c"))), s("d")), "bcd"),
    "a nested chord": (chord([chain(s("a"), s("b")), chord([s("c")] * 2, s("d"))], s("e")), "e"),
    "a body that is a chain": (chord([s("a")], chain(s("b"), group(s("c"), s("d")))), "cd"),
    "a link in the middle": (chain(linked("a", "x"), s("b")), "bx"),
    "a link at the end": (chain(s("a"), linked("b", "x", "y")), "xy"),
    "a link in a header": (chord([linked("a", "x"), s("b")], s("c")), "cx"),
    "a link of a link": (chain(linked("a", "x").set(link=linked("x", "y")), s("b")), "by"),
    "an empty group": (chain(group(), s("a")), "a"),
    "nothing": (group(), ""),
}


@pytest.mark.parametrize("name", CANVASES)
def test_the_finals_are_what_nothing_follows(name: str) -> None:
    canvas, ends = CANVASES[name]
    copy = copied(canvas)
    assert sorted(labels(copy)[end] for end in finals(copy, lambda part: True)) == sorted(ends)


def test_a_canvas_from_json_is_one_as_well() -> None:
    canvas = json.loads(json.dumps(chain(s("a"), group(s("b"), s("c")), s("d"))))
    copy = copied(canvas)
    assert "".join(labels(copy).values()) == "abcd"
    assert [labels(copy)[end] for end in finals(copy, lambda part: True)] == ["d"]


def test_the_given_canvas_stays_as_it_is() -> None:
    same = s("a")
    canvas = group(same, same, chain(s("b"), same))
    before = json.dumps(canvas)
    copy = copied(canvas)
    assert json.dumps(canvas) == before
    assert len(labels(copy)) == 4


def test_a_lazy_group_is_read_and_stays_usable() -> None:
    canvas = group(s(x) for x in "abc")
    assert len(labels(copied(canvas))) == len(labels(copied(canvas))) == 3


def test_of_tracked_tasks_the_last_one_counts() -> None:
    copy = copied(chain(s("A"), s("b"), group(s("C"), s("d")), s("e")))
    ends = finals(copy, lambda part: part["args"][0].isupper())
    assert [labels(copy)[end] for end in ends] == ["C"]


def test_without_a_tracked_body_a_chord_ends_with_its_members() -> None:
    copy = copied(chain(s("A"), chord([s("B"), s("C")], s("d"))))
    ends = finals(copy, lambda part: part["args"][0].isupper())
    assert [labels(copy)[end] for end in ends] == ["B", "C"]
