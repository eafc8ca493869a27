"""Files that are sent beside a message."""

from __future__ import annotations

import base64
import mimetypes
from pathlib import Path

from msgspec import Struct


class Attached(Struct, frozen=True):
    """A file beside a message: an image, a PDF or text."""

    name: str
    content: bytes
    media_type: str

    @classmethod
    def of(cls, path: str | Path) -> Attached:
        """A file of this machine; its ending says what it is.

        :raises OSError: it cannot be read
        """
        file = Path(path)
        guessed, _ = mimetypes.guess_type(file.name)
        return cls(file.name, file.read_bytes(), guessed or "text/plain")

    def body(self) -> dict[str, str]:
        """It in a request."""
        return {"name": self.name, "data": base64.b64encode(self.content).decode(), "mime_type": self.media_type}
