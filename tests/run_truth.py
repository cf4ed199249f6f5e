"""What is true of a run's tasks, whatever Redis made of it: who is at work, and what went wrong."""

from __future__ import annotations

from tests.run_messages import GRACE_MS, Message
from tests.run_world import DELIVERIES, QUEUE_MS, World


def works_undoubted(world: World) -> bool:
    """Whether a task is at work of which nobody may have told an end."""
    tasks = {execution.task for execution in world.executions} - world.doubted
    return any(world.is_healthy(task) for task in tasks)


def may_fail(world: World) -> bool:
    """Whether there is a reason for the run to have failed by now."""
    tasks = {execution.task for execution in world.executions} | world.failed
    tasks |= {message.task for message in world.messages}
    behind = world.loses_next or world.link.is_behind()
    return behind or any(_is_reason(world, task) for task in tasks)


def may_be_refused(world: World, message: Message) -> bool:
    """Whether it need not be executed: it is done, or a later attempt or others are at it."""
    key = (message.nesting, message.retries)
    later = [
        (nesting, retries)
        for (task, nesting), retries in world.sent.items()
        if task == message.task
    ]
    return (
        message.task in world.succeeded
        or any(other > key for other in later)
        or (message.task, message.nesting) in world.members
        or _is_spent(world, message.task)
    )


def _is_reason(world: World, task: str) -> bool:
    if task in world.failed:
        return True
    if world.is_healthy(task):
        return False
    if _is_spent(world, task) or task in world.doubted:
        return True
    return task not in world.succeeded and not _is_coming(world, task)


def _is_coming(world: World, task: str) -> bool:
    """Whether a message of it is on the way, and not for too long; or others stand for it."""
    others_work = any(world.is_healthy(other.task) for other in world.executions)
    copies = [message for message in world.messages if message.task == task]
    for copy in copies:
        limit_ms = GRACE_MS if copy.came_again else QUEUE_MS
        if world.now_ms - copy.since_ms < limit_ms or (others_work and not copy.came_again):
            return True
    return not copies and task in world.link.handed_over


def _is_spent(world: World, task: str) -> bool:
    executions = [e for e in world.executions if e.task == task]
    retries = max((execution.message.retries for execution in executions), default=0)
    return len(executions) - retries >= DELIVERIES
