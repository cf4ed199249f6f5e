"""Celery's canvases as trees of signatures: their tasks, what comes last, what comes next.

Plain reading of dicts, since a canvas in a message is one; only `copied` makes signatures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from celery.canvas import Signature, maybe_signature
from celery.utils import uuid

IN_ONE_TASK = ("celery.map", "celery.starmap", "celery.chunks")  # no signals for what is within
UNLOCK = "celery.chord_unlock"  # waits for a chord's header, where the backend can't

Canvas = Mapping[str, Any]
IsKnown = Callable[[Canvas], bool]  # whether a plain signature's task counts


def options_of(canvas: Canvas) -> Mapping[str, Any]:
    """The execution options of a signature."""
    return canvas.get("options") or {}


def within(canvas: Canvas) -> list[Canvas]:
    """The signatures that a chain, group or chord is made of, its body last; none in others."""
    kwargs = canvas.get("kwargs") or {}
    match canvas.get("subtask_type"):
        case "chain" | "group":
            inner = kwargs.get("tasks") or ()
        case "chord":
            header = kwargs.get("header") or ()
            inner = [*([header] if isinstance(header, Mapping) else header), kwargs.get("body")]
        case _:
            inner = ()
    return [signature for signature in inner if signature]


def is_plain(canvas: Canvas) -> bool:
    """Whether it is one task's signature."""
    return canvas.get("subtask_type") not in ("chain", "group", "chord")


def links(canvas: Canvas) -> list[Canvas]:
    """What is linked to follow a signature's success."""
    found = options_of(canvas).get("link") or ()
    return [found] if isinstance(found, Mapping) else list(found)


def parts(canvas: Canvas, *, linked: bool = False) -> Iterable[Canvas]:
    """The plain signatures within a canvas, however it is nested; a plain one is its own."""
    return filter(is_plain, tree(canvas, linked=linked))


def tree(canvas: Canvas, *, linked: bool = False) -> Iterable[Canvas]:
    """A canvas and all signatures within it; `linked` takes in what is linked to them."""
    yield canvas
    for inner in (*within(canvas), *(links(canvas) if linked else ())):
        yield from tree(inner, linked=linked)


def task_ids(canvas: Canvas) -> Iterable[str]:
    """The ids of all tasks in a canvas, as far as they have one."""
    for part in parts(canvas):
        if task_id := options_of(part).get("task_id"):
            yield str(task_id)


def finals(canvas: Canvas, is_known: IsKnown) -> list[str]:
    """The ids of the known tasks that a canvas ends with: after their success nothing is left."""
    if is_plain(canvas):
        ends = [end for link in links(canvas) for end in finals(link, is_known)]
        task_id = options_of(canvas).get("task_id")
        return ends or ([str(task_id)] if task_id and is_known(canvas) else [])
    inner, last = within(canvas), []
    match canvas["subtask_type"]:
        case "group":
            last = [end for signature in inner for end in finals(signature, is_known)]
            inner = []
        case "chord":  # without a known task after it, the header is the end
            body = [inner.pop()] if canvas["kwargs"].get("body") else []
            last = [end for signature in body for end in finals(signature, is_known)]
            if not last:
                last = [end for signature in inner for end in finals(signature, is_known)]
                inner = []
        case _:
            while inner and not last:
                last = finals(inner.pop(), is_known)
    linked = [link for earlier in inner for signature in tree(earlier) for link in links(signature)]
    return [*last, *(end for link in (*linked, *links(canvas)) for end in finals(link, is_known))]


def following(headers: Mapping[str, Any], embed: Mapping[str, Any]) -> tuple[list[Canvas], str]:
    """What comes after a message's task, in order, and the outermost group that it is part of.

    A message knows the rest of its chain, the body of the chord that it is in, and by that body's
    options the chord that this one is in. The group is "" where there is none.
    """
    after: list[Canvas] = []
    options: Mapping[str, Any] = {**embed, "group_id": headers.get("group")}
    group = ""
    while True:
        group = str(options.get("group_id") or group)
        chord = options.get("chord")
        if chain := options.get("chain"):  # the last one first; its options say the rest
            after += reversed(chain)
        elif chord:
            after.append(chord)
        else:
            return after, group
        options = options_of(_last(after[-1]))


def _last(canvas: Canvas) -> Canvas:
    """The signature whose options say what a canvas is part of."""
    if is_plain(canvas) or canvas["subtask_type"] == "group" or not within(canvas):
        return canvas
    return _last(within(canvas)[-1])


def copied(canvas: Canvas) -> Signature:
    """A canvas of its own, in which every task has an id; the one given stays as it is.

    Celery keeps these ids through freezing, cloning and JSON, whatever it makes of the canvas.
    """
    copy: Any = maybe_signature(canvas, clone=True)
    for name in ("tasks", "header"):
        if name in copy.kwargs and not is_plain(copy):
            copy.kwargs[name] = [copied(inner) for inner in copy.kwargs[name]]
    if copy.get("subtask_type") == "chord" and copy.kwargs.get("body"):
        copy.kwargs["body"] = copied(copy.kwargs["body"])
    if found := links(copy):
        copy.options["link"] = [copied(link) for link in found]
    if is_plain(copy):
        copy.options.setdefault("task_id", uuid())
    signature: Signature = copy
    return signature
