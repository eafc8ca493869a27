"""Storing an agent together with the workflow that talks for it: both, or none."""

from __future__ import annotations

from flux.agents.define.definition import AgentDefinition
from flux.agents.define.workflow_file import conversation_of
from flux.engine.service.registration import register_for_agent
from flux.engine.sources.catalog import Declaration, Source
from flux.errors import DefinitionInvalid, InvalidInput
from flux.store import agents, audit, workflows
from flux.store.agents import AgentVersion
from flux.store.database import Scope, Steps
from flux.store.workflows import AGENTS

Conversation = tuple[Source, Declaration]


def conversation(definition: AgentDefinition) -> Conversation | None:
    """The workflow that talks for an agent, read from its source; None: the agent talks by itself.

    :raises DefinitionInvalid: it cannot be registered
    """
    return conversation_of(definition.workflow_file) if definition.workflow_file else None


def put(
    scope: Scope, definition: AgentDefinition, talk: Conversation | None, *, create: bool, update: bool
) -> Steps[AgentVersion]:
    """Store a definition, and what `conversation` found in it.

    :raises AgentExists, AgentNotFound: by `create` and `update`
    :raises DefinitionInvalid: the workflow cannot be registered
    """
    name = definition.name
    stored = yield from agents.put(scope, name, definition.digest, definition.to_json(), create=create, update=update)
    about = {"version": stored.version, "digest": stored.digest}
    yield from audit.record(scope, "agent.create" if stored.version == 1 else "agent.update", name, about)
    if talk is None:
        yield from _drop(scope, name)
        return stored
    try:
        yield from register_for_agent(scope, name, *talk)
    except InvalidInput as error:
        raise DefinitionInvalid(f"workflow_file: {error}") from error
    return stored


def delete(scope: Scope, name: str) -> Steps[None]:
    """Remove an agent with its workflow; its sessions go on.

    :raises AgentNotFound: there is no such agent
    """
    yield from agents.delete(scope, name)
    yield from audit.record(scope, "agent.delete", name)
    yield from _drop(scope, name)


def _drop(scope: Scope, name: str) -> Steps[None]:
    before = yield from workflows.get(scope, AGENTS, name, source=False)
    if before is not None and before.of_agent:
        yield from workflows.drop(scope, AGENTS, name)
