"""A message that an instance of the project was given: what happens until its run rests, and what it came to."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec

from flux.agents.code.outcome import response_of
from flux.agents.code.types import PromptResponse, model_of
from flux.agents.process import Process
from flux.agents.project.instances import Address, Fate
from flux.engine.intake.answers import Admitted
from flux.errors import FluxError
from flux.events import UserSaid, decode
from flux.http.envelope import error_body
from flux.server.wire import interrupt_row
from flux.store.database import Scope
from flux.store.feed import Cursor, Frame
from flux.watch import RunWatch


class Prompted:
    """One message and its run."""

    def __init__(self, process: Process, scope: Scope, to: Address, admitted: Admitted) -> None:
        self.to = to
        self.session = admitted.id
        self.seq = admitted.seq
        self._process = process
        self._scope = scope

    async def until_rest(self, after: Cursor | None = None) -> AsyncGenerator[list[Frame], None]:
        """The frames of the session from the message on, or behind a cursor, to where its run waits or has ended."""
        rows = await self._process.sessions.entries(self._scope, self.session, self.seq - 1, 1)
        said = decode(rows[0].body)
        watch = RunWatch(said.id if isinstance(said, UserSaid) else None)
        place = Cursor(self.seq - 1)
        async with aclosing(self._process.sessions.follow(self._scope, self.session, place)) as batches:
            async for batch in batches:
                for index, frame in enumerate(batch, 1):
                    if frame.entry and watch.feed(decode(frame.data)) != "working":
                        yield [one for one in batch[:index] if after is None or one.cursor > after]
                        return
                yield [one for one in batch if after is None or one.cursor > after]

    async def fate(self) -> Fate:
        """What has become of it."""
        return await self._process.instances.fate(self._scope, self.session, self.seq)

    async def result(self) -> dict[str, Any]:
        """The envelope of what it came to, or of the questions that its run waits with.

        :raises AgentFailed, AbortError: there is no result
        """
        fate = await self.fate()
        if fate.outcome is None:
            asked = await self._process.sessions.interrupts(self._scope, self.session)
            return {"result": None, "status": fate.status, "session_id": self.session,
                    "interrupts": [interrupt_row(one) for one in asked]}  # fmt: skip
        answer: PromptResponse = response_of(fate.outcome, fate.spent, model_of(fate.model), None)
        return {"result": msgspec.to_builtins(answer) | {"metadata": self.metadata()}}

    def metadata(self) -> dict[str, Any]:
        """Which conversation it was."""
        return {"agent": self.to.agent, "id": self.to.id, "session": self.to.session, "session_id": self.session}

    async def told(self, after: Cursor | None) -> AsyncGenerator[list[Frame], None]:
        """What happens, in the words of the agents' routes: start, delta…, tool_start, tool_end, end or error."""
        if after is None:
            yield [self._frame(Cursor(self.seq - 1), "start", self.metadata())]
        last = Cursor(self.seq)
        async with aclosing(self.until_rest(after)) as batches:
            async for batch in batches:
                last = batch[-1].cursor if batch else last
                shown = [one for frame in batch if (one := _shown(frame)) is not None]
                if shown:
                    yield shown
        try:
            found = await self.result()
            yield [self._frame(last, "end" if found["result"] else "waiting", found)]
        except FluxError as error:
            yield [self._frame(last, "error", error_body(error))]

    def _frame(self, cursor: Cursor, type: str, body: dict[str, Any]) -> Frame:
        return Frame(cursor, type, msgspec.json.encode(body), entry=True)


def _shown(frame: Frame) -> Frame | None:
    """A frame of the session as the agents' routes tell it; None: they do not."""
    match frame.type:
        case "token":
            told = msgspec.json.decode(frame.data)
            return _as(frame, "delta", {"text": told["text"], "message_id": told["message_id"]})
        case "tool_start":
            told = msgspec.json.decode(frame.data)
            return _as(frame, "tool_start", {"id": told["call"], "name": told["name"]})
        case "tool_done":
            told = msgspec.json.decode(frame.data)
            shown = {key: told[key] for key in ("name", "status", "outcome")}
            return _as(frame, "tool_end", {"id": told["call"], **shown})
    return None


def _as(frame: Frame, type: str, body: dict[str, Any]) -> Frame:
    return frame._replace(type=type, data=msgspec.json.encode(body))
