"""Sessions whose agent talks by a workflow: rows of both kinds at once, a workflow's with an agent."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from flux.entries.workflows import WorkflowScheduled
from flux.errors import SessionNotFound
from flux.store import log, workflows
from flux.store.agents import AgentVersion
from flux.store.database import Scope, Steps
from flux.store.workflows import AGENTS, WorkflowVersion

BEGIN = """
update executions set kind = 'workflow', workflow = :workflow, source_version = :source_version, state = 'scheduled',
  due = :now, run_id = :id, head = head + 1, updated = :now
where id = :id and tenant = :tenant and state = 'idle'
returning head"""


class _File(Struct):
    digest: str


class _Definition(Struct):
    workflow_file: _File | None = None


_definition = msgspec.json.Decoder(_Definition)


def workflow_of(scope: Scope, agent: AgentVersion) -> Steps[WorkflowVersion | None]:
    """The workflow that talks for a version of an agent; None: it talks by itself."""
    file = _definition.decode(agent.definition).workflow_file
    return (yield from workflows.of_digest(scope, AGENTS, agent.name, file.digest)) if file else None


def begin(scope: Scope, id: str, agent: str, source_version: int) -> Steps[tuple[log.LogRow, ...]]:
    """Let the workflow of that version begin in a session that was made just now; what was written.

    :raises SessionNotFound: there is no such session
    """
    workflow = f"{AGENTS}/{agent}"
    moved = yield BEGIN, {"id": id, "tenant": scope.tenant, "workflow": workflow, "source_version": source_version}
    if not moved:
        raise SessionNotFound()
    scheduled = WorkflowScheduled(workflow=workflow, input={"agent": agent}, source_version=source_version)
    return (yield from log.insert(id, [scheduled], moved[0][0], id, 0))
