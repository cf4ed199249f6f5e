"""The `eventstream` command: the development stack, migrations, following a user's events."""

__all__: list[str] = []
