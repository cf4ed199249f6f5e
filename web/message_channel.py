"""`GET /api/messages/<id>/events`: an answer from a cursor, and live until it ends."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from shared import wire
from shared.errors import MalformedCursor, MalformedMessageId, RedisUnavailable
from shared.messages import message_id_of
from web.admission import Place, details
from web.delivery import Delivery
from web.identity import Identity
from web.merge import NO_CAP, Merge
from web.message_journal import MessageJournal
from web.message_place import MessagePlace
from web.message_watch import listens
from web.refusal import bad_message_id, no_such_message
from web.request import Request
from web.topic import Topic


async def find(delivery: Delivery, request: Request, identity: Identity) -> MessageChannel:
    """The channel of the user's message that the request names.

    Raises:
        Refusal: 400, its id is none; 404, it is not there, or another user's.
        PostgresUnavailable: it can't be looked up.
    """
    try:
        message_id = message_id_of(request.message_id or "")
    except MalformedMessageId as error:
        raise bad_message_id() from error
    user_id, settings = identity.user_id, delivery.settings
    day = await delivery.messages.day(user_id, message_id)
    if day is None:
        raise no_such_message()
    with suppress(RedisUnavailable):
        await delivery.hub.ready()
    known = details(request, message_id=message_id)
    lease = Place(delivery.hub, settings, user_id, known, delivery.watchers)
    place = MessagePlace(lease, delivery.open_here, settings)
    journal = MessageJournal(delivery.hub, delivery.messages, user_id, message_id, day)
    return MessageChannel(delivery, journal, place, request.cursor)


@dataclass(frozen=True, slots=True)
class MessageChannel:
    """One client's way into a message's channel."""

    delivery: Delivery
    journal: MessageJournal
    place: MessagePlace
    cursor: str | None

    async def begin(self, topic: Topic) -> tuple[Merge, bytes]:
        """Takes the place, and reads what the client lacks; without a cursor, everything.

        Raises:
            Refusal: 429, too many connections.
            PostgresUnavailable: the journal can't be read.
        """
        notice = b""
        try:
            cursor = wire.parse_sequence(self.cursor) or wire.BEFORE_FIRST
        except MalformedCursor:
            cursor, notice = wire.BEFORE_FIRST, wire.truncated_frame("malformed_cursor", None, None)
        await self.place.take(cursor)
        is_heard = await listens(self.delivery.hub, self.journal.topic)
        self.delivery.message_watch.add(topic, self.journal, is_heard=is_heard)
        merge = Merge(cursor, NO_CAP)
        page = await self.delivery.read_after(merge, topic)
        return merge, notice + merge.page(page)
