"""The schema of the database, as numbered SQL files. An applied file never changes."""

__all__: list[str] = []
