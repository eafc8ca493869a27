"""Exports of sessions, piece by piece: a long one is never held whole."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any, Literal

from flux import export, redaction
from flux.export import Markdown
from flux.store import log
from flux.store.channel import entry_frame
from flux.store.database import Database, Scope
from flux.store.log import LogRow

Format = Literal["jsonl", "markdown"]
#: Takes out of a text what nobody may read in a file.
Redact = Callable[[str], str]

PAGE = 500


async def exported(
    database: Database, scope: Scope, session: dict[str, Any], format: Format, redact: Redact = redaction.text
) -> AsyncGenerator[bytes, None]:
    """The file of a session, up to its present head. `session` is its row, as the API shows it."""
    markdown = Markdown()
    yield _bytes(redact(markdown.begin(session) if format == "markdown" else export.header(session)))
    after, head = 0, int(session["head"])
    while after < head:
        rows = await database.scan(log.read(scope, session["id"], after, min(PAGE, head - after)))
        if not rows:
            return  # it was deleted meanwhile
        after = rows[-1].seq
        told = _markdown(markdown, rows) if format == "markdown" else _jsonl(rows)
        if told:
            yield _bytes(redact(told))
    if format == "markdown":
        yield _bytes(redact(markdown.end()))


def _jsonl(rows: list[LogRow]) -> str:
    return "".join(f"{entry_frame(row).data.decode()}\n" for row in rows)


def _markdown(markdown: Markdown, rows: list[LogRow]) -> str:
    return "".join(markdown.feed(row.stored()) for row in rows)


def _bytes(text: str) -> bytes:
    return text.encode(errors="replace")
