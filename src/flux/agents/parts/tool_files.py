"""Tools of Python files as a part of an agent: checked where it is created, loaded where it runs."""

from __future__ import annotations

from flux.agents.define.approval import Predicate
from flux.agents.define.shipped import tool_files
from flux.agents.parts.task_tools import task_tool
from flux.agents.parts.tools_apart import ToolsApart
from flux.agents.turn.kits import Kit
from flux.agents.turn.loop import Session
from flux.engine.sources.source import Code, SourceLoader
from flux.engine.workflows.services import Services
from flux.tools.base import Tool
from flux.tools.tasks import tasks_of


class ToolFilesKit:
    """Makes the kit of the tools that an agent's files declare. `apart`: they run in processes of their own."""

    def __init__(self, loader: SourceLoader, services: Services, apart: ToolsApart | None = None) -> None:
        self._loader = loader
        self._services = services
        self._apart = apart

    async def __call__(self, session: Session) -> Kit | None:
        """The tools.

        :raises SourceUnusable: a file does not load on this worker
        :raises DefinitionInvalid: a tool in it is none that a model could call
        """
        made: list[Tool] = []
        predicates: dict[str, Predicate] = {}
        for file in tool_files(session.policy.definition):
            if self._apart is not None:
                tools, asked = await self._apart.tools(file, session)
                made, predicates = made + tools, predicates | asked
                continue
            module = await self._loader.module(Code(file.name, file.digest, file.source, "tools"))
            made += [task_tool(one, session, self._services, source=file.name) for one in tasks_of(file, module)]
        return Kit(tuple(made), predicates=predicates) if made else None
