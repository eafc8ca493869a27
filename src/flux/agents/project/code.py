"""The workflows of a project as executions: they are found here before the catalogue, and run in its pool alone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from flux.agents.project.discovery import Project
from flux.engine.service.executions import FindWorkflow, Found
from flux.engine.workflows.declared import Declared
from flux.errors import WorkflowNotFound
from flux.store.database import Scope
from flux.store.executions import Execution

#: Finds the live code of an execution.
FindCode = Callable[[Execution], Awaitable[Declared]]


def found_in(project: Project | None, others: FindWorkflow) -> FindWorkflow:
    """Find what starting a workflow takes: of the project, else of the catalogue."""
    if project is None:
        return others
    own = {code.qualified_name for code in project.workflows.values()}

    async def find(scope: Scope, workflow: str, version: int | None) -> Found:
        if workflow in own and version is None:
            return Found(workflow, None, project.pool)
        return await others(scope, workflow, version)

    return find


def code_of(project: Project | None, others: FindCode) -> FindCode:
    """Find the code of an execution: of the project where it runs in its pool, else of the catalogue."""
    if project is None:
        return others
    own = {code.qualified_name: code for code in project.workflows.values()}

    async def find(row: Execution) -> Declared:
        if row.pool != project.pool:
            return await others(row)
        code = own.get(row.workflow or "")
        if code is None:
            raise WorkflowNotFound(f"the project {project.name} has no workflow {row.workflow} any more")
        return code

    return find
