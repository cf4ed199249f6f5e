"""What a host application might name in AUTH_CALLABLE, for tests."""

from __future__ import annotations

from web.request import Request


def current_user(request: Request) -> str | None:
    """Whoever the host's own cookie names; `broken` stands for a defect."""
    user = request.cookies.get("host_session")
    if user == "broken":
        raise RuntimeError("the host's database is away")
    return user


def nameless(request: Request) -> object:
    """A defect: no user id."""
    return {"odd": 7, "blank": " ", "true": True}[request.cookies["host_session"]]


async def awaited(request: Request) -> str:
    """Can't be called without await."""
    return "alice"
