"""What all streams of one event loop share: settings, a Redis client, the hub, the drain flag."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from shared.connections import async_redis_client
from shared.settings import Settings
from shared.user_stream import UserStream
from web.admission import Lease, admitted
from web.hub import Hub

READING_CONNECTIONS = 16


class Delivery:
    """Built inside the loop that it serves; `aclose` it there."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.draining = False
        url = settings.require_redis_url()
        self._client = async_redis_client(url, connections=READING_CONNECTIONS)
        self._hub_client = async_redis_client(url, connections=1)
        self.hub = Hub(self._hub_client)

    def user_stream(self, user_id: str) -> UserStream:
        """A user's journal."""
        return UserStream(self._client, user_id)

    def admitted(self, user_id: str, *, replay: bool) -> AbstractAsyncContextManager[Lease]:
        """Holds a connection's lease, and charges a replay; see `Lease.take` for refusals."""
        return admitted(self._client, self.settings, user_id, replay=replay)

    def drain(self) -> None:
        """Ends every stream, each with a jittered `retry:`, and takes no new one."""
        self.draining = True
        self.hub.wake_all()

    async def aclose(self) -> None:
        """Closes the hub and the clients."""
        await self.hub.aclose()
        await self._hub_client.aclose()
        await self._client.aclose()
