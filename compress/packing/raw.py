"""The section of a container whose bytes are not coded."""

from __future__ import annotations

from compress.errors import CompressError


class RawReader:
    """Hands out the section's bytes in order; ``CompressError`` where more are asked for."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        end = self._at + count
        if end > len(self._data):
            raise CompressError("ends too early")
        found = self._data[self._at : end]
        self._at = end
        return found

    def finish(self) -> None:
        """Refuse bytes that nothing has read."""
        if self._at < len(self._data):
            raise CompressError("holds bytes that belong to nothing")
