"""Running cases: each in a session of its own, all on a database that is made for them and thrown away."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from flux.agents.define.definition import AgentDefinition
from flux.agents.define.yaml import define_from
from flux.agents.plans import state as plans
from flux.agents.process import Process, open_process
from flux.engine.intake.answers import Decision
from flux.engine.intake.inputs import NewMessage
from flux.errors import DefinitionInvalid, FluxError, InterruptDecided
from flux.events import AssistantSaid, ChatResponse, RunFailed, SubagentChanged, decode
from flux.settings import Settings
from flux.store import log
from flux.store.database import LOCAL, Scope
from flux.store.feed import Cursor
from flux.surfaces.cli.coded import runtime_at
from flux.surfaces.cli.connect import connect
from flux.surfaces.cli.options import settings_for
from flux.surfaces.evaluation import Case, Cases, Did, State, Verdict, judged
from flux.watch import RunWatch


class Place(NamedTuple):
    """Where cases run, on whose behalf, and whom they talk to."""

    process: Process
    scope: Scope
    agent: str


class Evaluation:
    """The cases of a file; `base` is its directory, `model` takes the place of the agents' own."""

    def __init__(self, cases: Cases, base: Path, model: str | None, server: str | None) -> None:
        self._cases = cases
        self._base = base
        self._model = model
        self._server = server

    async def run(self, cases: Sequence[Case], jobs: int) -> list[Verdict]:
        """Run cases, so many at a time; their verdicts in the order of the file.

        :raises DefinitionInvalid, MissingKey, AgentNotFound: the agent cannot run
        """
        slots = asyncio.Semaphore(jobs)
        async with self._place() as place:

            async def one(case: Case) -> Verdict:
                async with slots:
                    return await _verdict(place, case)

            return list(await asyncio.gather(*(one(case) for case in cases)))

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[Place]:
        own = settings_for(self._server)
        async with AsyncExitStack() as stack:
            folder = tempfile.TemporaryDirectory(prefix="flux-eval-", ignore_cleanup_errors=True)
            home = Path(stack.enter_context(folder))
            settings = msgspec.structs.replace(own, home=home, database_url="", synchronous="normal", server=None)
            if self._cases.runtime is not None:
                yield await self._coded(stack, settings, self._cases.runtime)
                return
            definitions = await self._definitions(own)
            opening = open_process(settings, environment=os.environ, workspace=Path.cwd())
            process = await stack.enter_async_context(opening)
            for definition in definitions:
                await process.agents.put(LOCAL, self._with_model(definition), create=True, update=True)
            yield Place(process, LOCAL, definitions[-1].name)

    async def _coded(self, stack: AsyncExitStack, settings: Settings, reference: str) -> Place:
        made = await asyncio.to_thread(runtime_at, reference)
        runtime = await stack.enter_async_context(made.on(settings=settings))
        process: Process = await runtime.process()
        names = [agent.name for agent in made.spec.agents]
        if self._model is not None:
            for name in names:
                found = await process.agents.get(runtime.scope, name)
                definition = self._with_model(AgentDefinition.from_json(found.definition))
                await process.agents.put(runtime.scope, definition, create=False, update=True)
        coordinator = getattr(made.spec, "coordinator", None)
        return Place(process, runtime.scope, coordinator.name if coordinator is not None else names[0])

    async def _definitions(self, settings: Settings) -> list[AgentDefinition]:
        """The agent, behind those that it hands work to."""
        if self._cases.file is not None:
            definition = define_from(self._base / self._cases.file, os.environ)
            return [*await self._colleagues(settings, definition, {definition.name}), definition]
        return await self._stored(settings, str(self._cases.agent), set())

    async def _stored(self, settings: Settings, name: str, seen: set[str]) -> list[AgentDefinition]:
        seen.add(name)
        async with connect(settings, worker=False) as client:
            found = await client.get(f"/agents/{name}")
        definition = AgentDefinition.model_validate(found["definition"])
        return [*await self._colleagues(settings, definition, seen), definition]

    async def _colleagues(
        self, settings: Settings, definition: AgentDefinition, seen: set[str]
    ) -> list[AgentDefinition]:
        found: list[AgentDefinition] = []
        for name in (*definition.agents, *definition.routes):
            if name not in seen:
                found += await self._stored(settings, name, seen)
        return found

    def _with_model(self, definition: AgentDefinition) -> AgentDefinition:
        if self._model is None:
            return definition
        fields = definition.model_dump(exclude_unset=True, mode="json")
        if "/" not in self._model:
            raise DefinitionInvalid(f"--model {self._model!r} must be provider/model")
        return AgentDefinition.model_validate({**fields, "model": self._model, "fallback_models": []})


async def _verdict(place: Place, case: Case) -> Verdict:
    began = time.monotonic()
    try:
        async with asyncio.timeout(case.timeout):
            did = await _done(place, case)
        faults = judged(case, did)
    except TimeoutError:
        did, faults = Did(), (f"it took longer than {case.timeout:g} s",)
    except FluxError as error:
        did, faults = Did(), (str(error),)
    return Verdict(case.name, faults, time.monotonic() - began, did.text)


async def _done(place: Place, case: Case) -> Did:
    """Say what the case says, one after the other, and see what came of it."""
    session: str | None = None
    end: Any = None
    state: State = "completed"
    for text in [case.input] if isinstance(case.input, str) else case.input:
        message = NewMessage(text)
        sessions = place.process.sessions
        if session is None:
            admitted = await sessions.start(place.scope, place.agent, message)
        else:
            admitted = await sessions.send(place.scope, session, message)
        session = admitted.id
        state, end = await _rested(place, session, admitted.seq - 1, case)
        if state != "completed":
            break
    if session is None:
        return Did(state="failed", error="the case says nothing")
    plan = await plans.newest(place.process.database, place.scope, session)
    return Did(
        text=end.content if isinstance(end, ChatResponse) else "",
        state=state,
        calls=await _calls(place, session),
        plan=plan.told() if plan is not None else None,
        error=end.message if isinstance(end, RunFailed) else None,
    )


async def _rested(place: Place, session: str, behind: int, case: Case) -> tuple[State, Any]:
    """How the run came to rest; questions are answered as the case says."""
    sessions = place.process.sessions
    (first,) = await sessions.entries(place.scope, session, behind, 1)
    watch = RunWatch(getattr(first.stored().entry, "id", None))
    async with aclosing(sessions.follow(place.scope, session, Cursor(behind))) as batches:
        async for batch in batches:
            for frame in batch:
                state = watch.feed(decode(frame.data)) if frame.entry else "working"
                if state == "ended":
                    return ("completed" if isinstance(watch.end, ChatResponse) else "failed"), watch.end
                if state == "waiting" and not await _answered(place, session, case):
                    return "waiting", None
    return "failed", None


async def _answered(place: Place, session: str, case: Case) -> bool:
    """Answer what is asked; False when the case leaves that to people, or nobody can know the answer."""
    open_ = await place.process.sessions.interrupts(place.scope, session)
    askable = [question for question in open_ if question.kind in ("approval", "plan")]
    if case.answer == "none" or len(askable) < len(open_):
        return False
    for question in askable:
        try:
            await place.process.sessions.answer(place.scope, session, question.id, Decision(case.answer))
        except InterruptDecided:
            continue
    return True


async def _calls(place: Place, session: str, seen: set[str] | None = None) -> list[tuple[str, dict[str, Any]]]:
    """The tool calls of a session, each followed by those of the session that it drives, at its first call."""
    seen = {session} if seen is None else seen
    rows = await place.process.database.read(log.read(place.scope, session))
    entries = [row.stored().entry for row in rows]
    driven = [entry for entry in entries if isinstance(entry, SubagentChanged)]
    children = {entry.call: entry.child for entry in driven}
    found: list[tuple[str, dict[str, Any]]] = []
    for entry in entries:
        for call in entry.calls if isinstance(entry, AssistantSaid) else ():
            found.append((call.name, call.args))
            child = children.get(call.id)
            if child is not None and child not in seen:
                seen.add(child)
                found += await _calls(place, child, seen)
    return found
