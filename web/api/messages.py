"""`/api/messages`: questions in, answers as they stand, and their end before time.

Their events are streamed by `GET /api/messages/<id>/events` (`web/message_channel.py`).
"""

from __future__ import annotations

import json
from typing import Any

import psycopg
from flask import Blueprint, request

from shared.connections import postgres
from shared.encoding import to_iso
from shared.errors import MalformedMessageId
from shared.message_announcer import Announcer, told_of_ended
from shared.message_pages import TEXT
from shared.messages import (
    MessageState,
    create_message,
    end_stale,
    message_id_of,
    message_state,
    request_stop,
)
from shared.questions import LONGEST_QUESTION, TASK, discard
from shared.settings import get_settings
from shared.text import is_storable
from web.api.user import request_user
from web.dispatch import send_task
from web.refusal import Refusal, bad_message_id, no_such_message

blueprint = Blueprint("messages", __name__)


@blueprint.post("/api/messages")
def create_answer() -> tuple[dict[str, Any], int]:
    """Takes a question (JSON) and has a worker answer it."""
    user_id = owner()
    question = _question(request.get_json(silent=True))
    with postgres() as connection:
        message_id = create_message(connection, user_id)
    arguments = {"message_id": message_id, "user_id": user_id, "question": question}
    try:
        send_task(TASK, arguments)
    except Exception:  # whatever it is, nobody will answer
        with postgres() as connection:
            discard(connection, user_id, message_id)
        raise
    return {"success": True, "message_id": message_id, "cursor": ""}, 202


@blueprint.get("/api/messages/<message_id>")
def get_message(message_id: str) -> dict[str, Any]:
    """The answer as it stands, and the cursor from which to watch the rest."""
    user_id, wanted = owner(), _id(message_id)
    _end_if_lost(wanted)
    with postgres() as connection:
        state = _found(message_state(connection, user_id, wanted))
        text = _text(connection, state)
    return _answer(state) | {"text": text}


@blueprint.delete("/api/messages/<message_id>")
def stop_answer(message_id: str) -> dict[str, Any]:
    """Has the writer stop, which it learns within a second; one that is over stays as it is."""
    user_id, wanted = owner(), _id(message_id)
    with postgres() as connection:
        return _answer(_found(request_stop(connection, user_id, wanted)))


def find_message(user_id: str, message_id: str) -> MessageState:
    """One of the user's messages; raises Refusal (400 or 404)."""
    wanted = _id(message_id)
    with postgres() as connection:
        return _found(message_state(connection, user_id, wanted))


def owner() -> str:
    """The user's id; raises Refusal, 401, or 404 for one that can own no message."""
    user_id = request_user()
    if not is_storable(user_id):  # such an id can own nothing
        raise no_such_message()
    return user_id


def _question(body: Any) -> str:
    question = body.get("question") if isinstance(body, dict) else None
    if not isinstance(question, str) or not question.strip():
        raise Refusal(400, "no_question", 'Send JSON with a text: {"question": "..."}.')
    if len(question) > LONGEST_QUESTION:
        message = f"A question has at most {LONGEST_QUESTION} characters."
        raise Refusal(400, "bad_question", message)
    return question.strip()


def _id(message_id: str) -> str:
    try:
        return message_id_of(message_id)
    except MalformedMessageId as error:
        raise bad_message_id() from error


def _found(state: MessageState | None) -> MessageState:
    if state is None:
        raise no_such_message()
    return state


def _end_if_lost(message_id: str) -> None:
    """Whoever looks at an answer whose writer is gone has it ended."""
    with postgres() as connection:
        ended = end_stale(connection, get_settings().message_stale_seconds, message_id)
    Announcer().announce(told_of_ended(ended))


def _text(connection: psycopg.Connection[Any], state: MessageState) -> str:
    values = {"day": state.day, "id": state.id, "last": state.last_sequence}
    return "".join(
        str(json.loads(row[0]).get("answer", "")) for row in connection.execute(TEXT, values)
    )


def _answer(state: MessageState) -> dict[str, Any]:
    return {
        "success": True,
        "message_id": state.id,
        "status": state.status,
        "cursor": "" if state.last_sequence < 0 else str(state.last_sequence),
        "created_at": to_iso(state.created_at),
        "finished_at": to_iso(state.finished_at) if state.finished_at else None,
        "error": state.error_code,
    }
