"""`/export`: the session as text on the screen, or as a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from msgspec import Struct

from flux.client import SessionHandle
from flux.errors import InvalidInput

FORMATS = ("markdown", "jsonl")
#: Endings of names that say the format.
ENDINGS = {".md": "markdown", ".markdown": "markdown", ".jsonl": "jsonl", ".ndjson": "jsonl"}


class Wanted(Struct, frozen=True):
    """What to write, and where: None is the screen."""

    format: str
    file: Path | None


def wanted(said: str) -> Wanted:
    """What is behind the command: a format, a file, both or nothing.

    :raises InvalidInput: the name of the file does not tell the format, or another one
    """
    word, _, rest = said.strip().partition(" ")
    format, name = (word, rest.strip()) if word in FORMATS else (None, said.strip())
    if not name:
        return Wanted(format or "markdown", None)
    file = Path(name).expanduser()
    format = format or ENDINGS.get(file.suffix.lower())
    if format is None:
        raise InvalidInput(f"/export {name}: end the name with .md or .jsonl, or say /export jsonl {name}")
    return Wanted(format, file)


async def export(session: SessionHandle, said: str, show: Callable[[str], None]) -> str | None:
    """Write the session where `said` wants it; what to tell of a file, and None when it was shown.

    :raises InvalidInput: the file cannot be written, or is there already
    :raises ServerUnreachable: the connection broke; no file is left
    """
    what = wanted(said)
    if what.file is None:
        pieces = [piece async for piece in session.export(what.format)]
        show(b"".join(pieces).decode(errors="replace").rstrip("\n"))
        return None
    size = 0
    with _new(what.file) as file:
        async for piece in session.export(what.format):
            size += file.write(piece)
    return f"Wrote {what.file} ({size:,} bytes)"


@contextmanager
def _new(path: Path) -> Iterator[IO[bytes]]:
    """A file that was not there before, and is gone again if it is not written to the end."""
    try:
        with path.open("xb") as file, ExitStack() as unless_whole:
            unless_whole.callback(path.unlink)
            yield file
            file.flush()
            unless_whole.pop_all()
    except FileExistsError as error:
        raise InvalidInput(f"{path} is there already; choose another name") from error
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written: {error.strerror}") from error
