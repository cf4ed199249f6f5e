"""Inside Celery: task signals become facts, facts become events. `celery -A worker` finds `app`."""

from worker.app import app

__all__ = ["app"]
