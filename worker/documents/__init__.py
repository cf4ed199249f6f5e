"""The built-in pipeline: an upload's files are parsed side by side, cut into chunks, indexed."""

__all__: list[str] = []
