"""What the two processes say to each other: one JSON object per line, over a socket that is theirs alone.

    to the child                                      from the child
    load {file}                                       loaded {tools} | failed {kind, message}
    run {id, tool | nested, role, args, given}        done {id, value} | raised {id, message}
    cancel {id}                                       ask {id, run, path, what, given}
    answer {id, value | message}

`run` calls a function of a tool, or of a task that a tool has called: `nested` is what the child knows it by.
`ask` is what its code would ask of the engine, from its branch `path` of the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Literal

import msgspec
from msgspec import Struct

from flux.errors import ExecutionError, error_tree

#: Bytes of a line at most.
MAX_LINE = 64_000_000

#: Which function of a task: its own, what stands in for it, what undoes it, or what says whether to ask.
Role = Literal["function", "fallback", "rollback", "asks"]


class Described(Struct, frozen=True):
    """A tool of the file. `asks` None: its arguments say whether to ask.

    `options` are those of its task that are data, `roles` the functions that it has besides its own.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    effect: Literal["read", "idempotent", "once"]
    asks: bool | None
    options: dict[str, Any]
    roles: list[Role]


class Message(Struct, frozen=True):
    """What is said; the fields that an `op` does not have are empty."""

    op: Literal["load", "run", "cancel", "answer", "loaded", "failed", "done", "raised", "ask"]
    id: int = 0
    run: int = 0
    path: tuple[int | str, ...] = ()
    what: str = ""
    given: dict[str, Any] = {}
    tool: str = ""
    nested: int = 0
    role: Role = "function"
    args: dict[str, Any] = {}
    value: Any = None
    message: str | None = None
    kind: str = ""
    file: dict[str, Any] = {}
    tools: list[Described] = []


def failure(message: Message) -> ExecutionError:
    """The failure that a message tells of."""
    cls = error_tree().get(message.kind, ExecutionError)
    return (cls if issubclass(cls, ExecutionError) else ExecutionError)(message.message)


class Line:
    """One end of the socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def say(self, message: Message) -> None:
        """Send a message; one that cannot be sent any more is lost.

        :raises ValueError: it is longer than a line may be
        """
        line = msgspec.json.encode(message) + b"\n"
        if len(line) > MAX_LINE:
            raise ValueError(f"it is larger than {MAX_LINE:,} bytes")
        if not self._writer.is_closing():
            self._writer.write(line)

    async def messages(self) -> AsyncIterator[Message]:
        """What the other end says, until it leaves or says what nobody understands."""
        try:
            while line := await self._reader.readline():
                yield msgspec.json.decode(line, type=Message)
        except (ValueError, ConnectionError):  # what is no message is a ValueError, and so is a line that is too long
            return

    def close(self) -> None:
        """Leave."""
        self._writer.close()
