"""Tools of Python files as a part of an agent: checked where it is created, loaded where it runs."""

from __future__ import annotations

from flux.agents.kept import Recent
from flux.agents.kits import Kit
from flux.agents.loop import Session
from flux.agents.shipped import tool_files
from flux.engine.source import Code, SourceLoader
from flux.errors import DefinitionInvalid
from flux.tools.base import Tool
from flux.tools.declared import declared_tools
from flux.tools.tasks import tasks_in, tool_of_task
from flux.tools.tool_file import ToolFile

KEPT = 256


class ToolFilesKit:
    """Makes the kit of the tools that an agent's files declare."""

    def __init__(self, loader: SourceLoader) -> None:
        self._loader = loader
        self._kits: Recent[str, Kit] = Recent(KEPT)

    async def __call__(self, session: Session) -> Kit | None:
        """The tools.

        :raises SourceUnusable: a file does not load on this worker
        :raises DefinitionInvalid: a tool in it is none that a model could call
        """
        definition = session.policy.definition
        files = tool_files(definition)
        if not files:
            return None
        kit = self._kits.get(definition.digest)
        if kit is None:
            kit = Kit(tuple([tool for file in files for tool in await self._load(file)]))
            self._kits.put(definition.digest, kit)
        return kit

    async def _load(self, file: ToolFile) -> list[Tool]:
        module = await self._loader.module(Code(file.name, file.digest, file.source, "tools"))
        tasks = tasks_in(module)
        made: list[Tool] = []
        for declared in declared_tools(file):
            if declared.name not in tasks:
                raise DefinitionInvalid(f"{file.name}: when it is loaded, it has no task {declared.name}")
            try:
                made.append(tool_of_task(tasks[declared.name], source=file.name))
            except DefinitionInvalid as error:
                raise DefinitionInvalid(f"{file.name}: line {declared.line}: {error}") from error
        return made
