"""Tools of Python files as a part of an agent: checked where it is created, loaded where it runs."""

from __future__ import annotations

from functools import lru_cache
from types import ModuleType
from typing import Any

from flux.agents.define.shipped import tool_files
from flux.agents.parts.task_tools import task_tool
from flux.agents.turn.kits import Kit
from flux.agents.turn.loop import Session
from flux.engine.sources.source import Code, SourceLoader
from flux.engine.workflows.services import Services
from flux.engine.workflows.task import task
from flux.errors import DefinitionInvalid
from flux.tools.base import Tool
from flux.tools.declared import DeclaredTool, declared_tools
from flux.tools.tool_file import ToolFile


class ToolFilesKit:
    """Makes the kit of the tools that an agent's files declare."""

    def __init__(self, loader: SourceLoader, services: Services) -> None:
        self._loader = loader
        self._services = services

    async def __call__(self, session: Session) -> Kit | None:
        """The tools.

        :raises SourceUnusable: a file does not load on this worker
        :raises DefinitionInvalid: a tool in it is none that a model could call
        """
        files = tool_files(session.policy.definition)
        made = [tool for file in files for tool in await self._load(file, session)]
        return Kit(tuple(made)) if made else None

    async def _load(self, file: ToolFile, session: Session) -> list[Tool]:
        module = await self._loader.module(Code(file.name, file.digest, file.source, "tools"))
        tasks = _tasks_in(module)
        made: list[Tool] = []
        for declared in _declared(file):
            if declared.name not in tasks:
                raise DefinitionInvalid(f"{file.name}: when it is loaded, it has no task {declared.name}")
            try:
                made.append(task_tool(tasks[declared.name], session, self._services, source=file.name))
            except DefinitionInvalid as error:
                raise DefinitionInvalid(f"{file.name}: line {declared.line}: {error}") from error
        return made


@lru_cache(maxsize=256)
def _declared(file: ToolFile) -> tuple[DeclaredTool, ...]:
    return declared_tools(file)


def _tasks_in(module: ModuleType) -> dict[str, task[..., Any]]:
    """The tasks that a module defines itself, by name."""
    # Asked of the type: a module may hold objects that answer to any name.
    found: list[Any] = [value for value in vars(module).values() if issubclass(type(value), task)]
    return {one.name: one for one in found if getattr(one.function, "__module__", None) == module.__name__}
