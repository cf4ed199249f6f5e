"""The web process: Server-Sent Events, the JSON endpoints and the pages."""

from web.app import create_app

__all__ = ["create_app"]
