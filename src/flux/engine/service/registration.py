"""What may be done with registered workflows: the service behind every surface."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from flux.engine.dispatching.pools import place_of
from flux.engine.service.executions import Found
from flux.engine.service.scheduling import put_from_options
from flux.engine.sources.catalog import Declaration, Source, read_source
from flux.errors import InvalidInput, SourceInvalid
from flux.store import audit, workflows
from flux.store.database import NEWEST, Database, Scope, Steps
from flux.store.workflows import AGENT_CHAT, AGENTS, WorkflowVersion


class Workflows:
    """Registered workflows. Every method takes the caller's scope and finds only what is theirs."""

    def __init__(self, database: Database) -> None:
        self._database = database
        #: Called when a file was stored: it may have brought schedules.
        self.on_registered: Callable[[], None] = lambda: None

    async def register(self, scope: Scope, data: bytes) -> list[WorkflowVersion]:
        """Store an uploaded file as the newest version of each workflow it declares; nothing of it is run.

        :raises TooLarge: it has more than 1 MiB
        :raises SourceInvalid: it does not parse, declares no workflow, or one that is not valid
        """
        source = await asyncio.to_thread(read_source, data)
        stored = await self._database.write(_noted(scope, register_steps(scope, source)))
        self.on_registered()
        return stored

    async def get(
        self, scope: Scope, namespace: str, name: str, version: int | None = None, *, source: bool = True
    ) -> WorkflowVersion:
        """A workflow: its current version, or the one asked for; `source`: with its file.

        :raises WorkflowNotFound: there is none
        """
        found = await self._database.single(workflows.get(scope, namespace, name, version, source=source))
        if found is None:
            raise workflows.not_found(namespace, f"{name} version {version}" if version else name)
        return found

    async def found(self, scope: Scope, workflow: str, version: int | None) -> Found:
        """What starting "namespace/name" takes.

        :raises WorkflowNotFound: there is none
        """
        namespace, _, name = workflow.partition("/")
        one = await self.get(scope, namespace, name, version, source=False)
        pool, requests = place_of(one.options)
        return Found(workflow, one.version, pool, requests)

    async def page(
        self, scope: Scope, namespace: str | None, after: tuple[str, str], limit: int
    ) -> list[WorkflowVersion]:
        """Workflows by namespace and name, without their sources."""
        return await self._database.read(workflows.list_current(scope, namespace, after, limit))

    async def versions(self, scope: Scope, namespace: str, name: str, before: int, limit: int) -> list[WorkflowVersion]:
        """The versions below `before`, newest first, without their sources; also of a workflow that was deleted.

        :raises WorkflowNotFound: there is none
        """
        found = await self._database.read(workflows.versions(scope, namespace, name, before, limit))
        if not found and before == NEWEST:
            raise workflows.not_found(namespace, name)
        return found

    async def delete(self, scope: Scope, namespace: str, name: str) -> None:
        """Remove a workflow; its executions go on.

        :raises WorkflowNotFound: there is none
        """
        program = workflows.delete(scope, namespace, name)
        await self._database.write(audit.noted(scope, program, "workflow.delete", f"{namespace}/{name}"))


def _noted(scope: Scope, program: Steps[list[WorkflowVersion]]) -> Steps[list[WorkflowVersion]]:
    stored = yield from program
    for one in stored:
        about = {"version": one.version, "digest": one.digest}
        yield from audit.record(scope, "workflow.register", f"{one.namespace}/{one.name}", about)
    return stored


def register_steps(scope: Scope, source: Source) -> Steps[list[WorkflowVersion]]:
    """Store each workflow of a source, in the order of their names so that two files cannot block each other."""
    stored: list[WorkflowVersion] = []
    for one in source.workflows:
        place_of(one.options)
        if one.namespace == AGENTS:
            yield from _refuse_agents_own(scope, one.name)
        put = workflows.put(
            scope, one.namespace, one.name, digest=source.digest, source=source.text, options=one.options
        )
        stored.append((yield from put))
        schedule = msgspec.json.decode(one.options).get("schedule")
        if schedule is not None:
            yield from put_from_options(scope, one.namespace, one.name, msgspec.json.encode(schedule).decode())
    return stored


def register_for_agent(scope: Scope, agent: str, source: Source, one: Declaration) -> Steps[WorkflowVersion]:
    """Store a workflow as the one that talks for an agent, whatever it is called in its file.

    :raises InvalidInput: it has options that such a workflow cannot have, or the name is taken
    """
    options = msgspec.json.decode(one.options) | {"declared": f"{one.namespace}/{one.name}"}
    if options.get("schedule") is not None:
        raise InvalidInput(
            f"{one.name} has a schedule; give the agent one: `flux schedule create NAME --agent {agent}`"
        )
    place_of(one.options)
    before = yield from workflows.get(scope, AGENTS, agent, source=False)
    if before is not None and not before.of_agent:
        raise InvalidInput(f"there is a workflow {AGENTS}/{agent} already; rename one of them")
    text = msgspec.json.encode(options).decode()
    return (yield from workflows.put(scope, AGENTS, agent, digest=source.digest, source=source.text, options=text))


def _refuse_agents_own(scope: Scope, name: str) -> Steps[None]:
    """A workflow of an agent is changed with the agent."""
    if name == AGENT_CHAT:
        raise SourceInvalid(f"{AGENTS}/{AGENT_CHAT} is reserved; give the file to an agent as its workflow_file")
    before = yield from workflows.get(scope, AGENTS, name, source=False)
    if before is not None and before.of_agent:
        raise SourceInvalid(f"{AGENTS}/{name} talks for the agent {name}; change it with `flux agent update {name}`")
