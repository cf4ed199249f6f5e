"""Who is asking: the one question, answered as `AUTH_TYPE` says."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

from shared.settings import Settings, get_settings
from web.anonymous import Anonymous
from web.credentials import Credentials
from web.host_callable import HostCallable
from web.identity import Identity
from web.request import Request

__all__ = ["Authenticator", "Identity", "authenticator"]

THREADS = 16

_Type = Anonymous | Credentials | HostCallable
_TYPES: dict[str, type[_Type]] = {"none": Anonymous, "jwt": Credentials, "callable": HostCallable}


class Authenticator:
    """Knows who sends a request.

    It waits in threads of its own, so that a server that hangs holds up nothing else.

    Raises:
        SettingsError: the settings of this `AUTH_TYPE` are not complete, or contradict each other.
    """

    def __init__(self, settings: Settings) -> None:
        self._type: _Type = _TYPES[settings.auth_type](settings)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="eventstream-auth")

    def blocks(self, request: Request) -> bool:
        """Whether `identify` may wait for a server."""
        return self._type.blocks(request)

    def identify(self, request: Request) -> Identity:
        """Who is asking.

        Raises:
            Refusal: 401 `not_authenticated` or `token_expired`; 403, not for this host; 500, the
                host application's function failed; 503, the keys of tokens can't be had.
            RedisUnavailable: a ticket or a session can't be looked up.
        """
        return self._type.identify(request)

    async def identify_in_loop(self, request: Request) -> Identity:
        """The same without holding up an event loop."""
        if not self.blocks(request):
            return self.identify(request)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self.identify, request)


def authenticator() -> Authenticator:
    """This process's authenticator; raises SettingsError as `Authenticator` does."""
    return _of(os.getpid(), get_settings())


@lru_cache(maxsize=1)
def _of(pid: int, settings: Settings) -> Authenticator:
    return Authenticator(settings)
