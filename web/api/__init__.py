"""The JSON endpoints, a blueprint each."""

__all__: list[str] = []
