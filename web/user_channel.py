"""`GET /api/events`: a user's events, replayed from a cursor and then live."""

from __future__ import annotations

from dataclasses import dataclass

from shared import wire
from shared.errors import MalformedCursor
from web.admission import Place, details
from web.delivery import Delivery
from web.identity import Identity
from web.merge import Merge
from web.request import Request
from web.topic import Topic
from web.user_journal import UserJournal


async def find(delivery: Delivery, request: Request, identity: Identity) -> UserChannel:
    """The user's channel.

    Raises:
        RedisUnavailable: it is not known where it is.
    """
    await delivery.hub.ready()
    user_id = identity.user_id
    place = Place(delivery.hub, delivery.settings, user_id, details(request), delivery.watchers)
    return UserChannel(delivery, UserJournal(delivery.hub, user_id), place, request.cursor)


@dataclass(frozen=True, slots=True)
class UserChannel:
    """One client's way into a user's channel."""

    delivery: Delivery
    journal: UserJournal
    place: Place
    cursor: str | None

    async def begin(self, topic: Topic) -> tuple[Merge, bytes]:
        """Takes the place, and reads what the client lacks; a fresh one starts live.

        Raises:
            Refusal: 429, too many connections or replays.
            RedisUnavailable: Redis did not answer.
        """
        malformed = False
        try:
            cursor = wire.parse_cursor(self.cursor)
        except MalformedCursor:
            cursor, malformed = None, True
        last_id = await self.place.take(cursor, topic.observe)
        if cursor is None:
            notice = wire.truncated_frame("malformed_cursor", None, last_id) if malformed else b""
            return Merge(last_id, None), notice + wire.prime_frame(last_id)
        merge = Merge(cursor, self.delivery.settings.events_replay_max_per_request)
        page = await self.delivery.read_after(merge, topic)
        return merge, merge.page(page)
