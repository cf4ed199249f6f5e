"""`AUTH_TYPE=callable`: the authentication that the host application has already."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import import_module
from inspect import iscoroutinefunction

from shared.errors import SettingsError
from shared.settings import Settings
from web.identity import Identity, is_user_id, not_authenticated
from web.refusal import Refusal
from web.request import Request

log = logging.getLogger(__name__)


class HostCallable:
    """Raises SettingsError where `AUTH_CALLABLE` names nothing that can be called."""

    def __init__(self, settings: Settings) -> None:
        self._name = settings.auth_callable
        self._function = _load(self._name)

    def blocks(self, request: Request) -> bool:
        """Always: it is theirs to say."""
        return True

    def identify(self, request: Request) -> Identity:
        """Who they say it is.

        Raises:
            Refusal: 401, nobody; 500, their function failed, and that lets nobody in.
        """
        try:
            found = self._function(request)
        except Exception as error:
            log.exception("AUTH_CALLABLE=%s failed", self._name)
            raise _failed() from error
        if found is None:
            raise not_authenticated("Nobody is signed in. Please sign in first.")
        user_id = found.user_id if isinstance(found, Identity) else found
        if not is_user_id(user_id):
            kind = type(user_id).__name__
            log.error("AUTH_CALLABLE=%s returned a user id that is no text: %s", self._name, kind)
            raise _failed()
        return found if isinstance(found, Identity) else Identity(user_id)


def _load(name: str) -> Callable[[Request], object]:
    if not name:
        raise SettingsError(
            "AUTH_TYPE=callable needs AUTH_CALLABLE, which takes a callable such as "
            "yourpackage.auth:current_user and is not set."
        )
    module_name, _, function_name = name.partition(":")
    try:
        function = getattr(import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise SettingsError(f"AUTH_CALLABLE is wrong: {name!r} can't be had: {error}.") from error
    if not callable(function) or iscoroutinefunction(function):
        raise SettingsError(
            f"AUTH_CALLABLE is wrong: {name!r} is no function that can be called without await."
        )
    return function  # type: ignore[no-any-return]


def _failed() -> Refusal:
    message = "Who is asking could not be found out. The server's log says why."
    return Refusal(500, "authentication_failed", message)
