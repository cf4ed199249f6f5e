"""What worker and web have in common: words, wire format, keys, journals. No Celery, no Flask."""

__all__: list[str] = []
