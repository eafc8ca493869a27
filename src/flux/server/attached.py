"""What is sent beside the text of a message: images and files as the parts of a message."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from flux.errors import InvalidInput
from flux.messages import FilePart, ImagePart, TextPart, UserPart

MOST = 20
PDF = "application/pdf"
#: What is text although its media type does not begin with text/.
TEXTS = frozenset({"application/json", "application/xml", "application/yaml", "application/x-yaml", "application/toml"})


class Image(BaseModel):
    """An image beside a message: its bytes in base64, and their media type."""

    model_config = ConfigDict(extra="forbid")

    data: str = Field(min_length=1)
    mime_type: str = Field(pattern=r"^image/[A-Za-z0-9.+_-]{1,60}$")


class File(BaseModel):
    """A file beside a message: an image, a PDF or text, its bytes in base64."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")
    data: str = Field(min_length=1)
    mime_type: str = Field(max_length=100)


Images = Annotated[list[Image], Field(default=[], max_length=MOST)]
Files = Annotated[list[File], Field(default=[], max_length=MOST)]


def parts_of(images: Sequence[Image], files: Sequence[File]) -> tuple[UserPart, ...]:
    """What stands beside the text in the log.

    :raises InvalidInput: something is no base64, or neither an image, a PDF nor text
    """
    for n, image in enumerate(images):
        _bytes(f"images.{n}", image.data)
    shown: list[UserPart] = [ImagePart(image.data, image.mime_type) for image in images]
    return (*shown, *(_part(f"files.{n}", file) for n, file in enumerate(files)))


def _part(where: str, file: File) -> UserPart:
    content = _bytes(where, file.data)
    kind = file.mime_type.partition(";")[0].strip().lower()
    if kind.startswith("image/"):
        return ImagePart(file.data, kind)
    if kind == PDF:
        return FilePart(file.data, kind, file.name)
    if kind.startswith("text/") or kind in TEXTS:
        return TextPart(f"\n\nFile {file.name}:\n\n{_text(where, content)}")
    raise InvalidInput(f"{where}.mime_type: {kind[:80]!r} is neither an image, application/pdf nor text")


def _bytes(where: str, data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(f"{where}.data: is no base64: {error}") from error


def _text(where: str, content: bytes) -> str:
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{where}.data: is no text in UTF-8") from error
    if "\0" in text:
        raise InvalidInput(f"{where}.data: is no text: it holds the character NUL")
    return text
