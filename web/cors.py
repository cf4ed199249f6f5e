"""What pages of other origins may do: read (CORS, the Fetch standard) and write.

Only an origin that `CORS_ORIGINS` lists may send cookies along; `*` opens what needs none.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from shared.settings import Settings
from web.refusal import Refusal
from web.request import Request

PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Last-Event-ID, Content-Type, Idempotency-Key",
    "Access-Control-Max-Age": "600",
}
FOREIGN = (
    "Writes are taken from this host's own pages, and from the origins in CORS_ORIGINS: the Origin "
    "is neither. Behind a proxy, have it pass the Host header on."
)
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def is_preflight(request: Request) -> bool:
    """Whether a browser asks if it may send another request."""
    asks = "access-control-request-method" in request.headers
    return request.method == "OPTIONS" and asks


def cors_headers(request: Request, settings: Settings) -> dict[str, str]:
    """The headers that let a page of another origin read the answer; none where none may."""
    allowed = settings.allowed_origins
    if not allowed:
        return {}
    headers = {"Vary": "Origin"}
    origin = request.headers.get("origin", "")
    if origin.lower() in allowed and origin != "*":
        headers["Access-Control-Allow-Origin"] = origin
        headers["Access-Control-Allow-Credentials"] = "true"
    elif "*" in allowed:
        headers["Access-Control-Allow-Origin"] = "*"
    else:
        return headers
    headers["Access-Control-Expose-Headers"] = "Retry-After"
    return headers | (PREFLIGHT if is_preflight(request) else {})


def check_write(request: Request, settings: Settings) -> None:
    """Refuses a write that a browser sends with its cookies from another site's page.

    A token in a header is no cookie: the page that sends it knows it. Where everyone is one user,
    or the host application decides, any header might be beside a cookie.

    Raises:
        Refusal: 403, the origin is neither this host nor listed in `CORS_ORIGINS`.
    """
    by_header = settings.auth_type == "jwt" and request.bearer_token is not None
    if request.method in SAFE_METHODS or by_header:
        return
    if _is_foreign(request, settings):
        raise Refusal(403, "cross_origin", FOREIGN)


def _is_foreign(request: Request, settings: Settings) -> bool:
    origin = request.headers.get("origin")
    if origin is None:
        return request.headers.get("sec-fetch-site") == "cross-site"
    if origin != "*" and origin.lower() in settings.allowed_origins:
        return False
    netloc = _netloc(origin)
    return not netloc or netloc != request.headers.get("host", "").lower()


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin.lower()).netloc
    except ValueError:
        return ""
