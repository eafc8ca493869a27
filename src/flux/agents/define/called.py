"""The tools of an agent of the application: its own functions, and the bundled ones under the names of a harness."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

from flux.agents.define.tool import ToolCallContext, ToolDefinition
from flux.sandboxes.base import Sandbox
from flux.tools.base import Failed, Tool, ToolContext, ToolOutcome
from flux.tools.blocking import LoopWatch
from flux.tools.cancel import CancelSignal
from flux.tools.files import FileNames, FileTools
from flux.tools.function import outcome_of, renamed
from flux.tools.groups import by_sandbox
from flux.tools.references import Ref, ReferenceMissing, kept, loaded, with_references
from flux.tools.search import Most, SearchTools
from flux.tools.shell import ShellTools
from flux.tools.workspace import GroupConfig

#: The tools that every session of a harness has.
BUILT_IN = ("read", "write", "edit", "bash", "grep", "glob")
TASK, ACTIVATE_SKILL = "task", "activate_skill"
MAX_LINES, MAX_CHARS, MAX_MATCHES, MAX_PATHS = 2_000, 50 * 1024, 100, 1_000
#: Seconds that a command, or any other built-in tool, may take.
TIMEOUT = 300.0

_watch = LoopWatch()


def built_in(sandbox: Sandbox) -> tuple[Tool, ...]:
    """The bundled tools under the names of a harness, with its limits."""
    return _built_in(sandbox.name)


@cache
def _built_in(sandbox: str) -> tuple[Tool, ...]:
    config = by_sandbox(GroupConfig(timeout=TIMEOUT, max_output_chars=MAX_CHARS), sandbox)
    names = FileNames(write="write", old="old_text", new="new_text")
    files = FileTools(config, names, MAX_LINES).tools()
    search = SearchTools(config, Most(MAX_PATHS, MAX_MATCHES)).tools()
    found = {tool.name: tool for tool in (*files, *search, *ShellTools(config, sandbox).tools())}
    return (
        found["read_file"].named("read"),
        found["write_file"].named("write"),
        renamed(found["edit_file"], "edit", {"old_string": "old_text", "new_string": "new_text"}),
        found["shell"].named("bash"),
        found["grep"],
        found["find_files"].named("glob"),
    )


def code_tool(made: ToolDefinition) -> Tool:
    """A tool of the application. References in its arguments are loaded for it; one that it returns is kept."""
    code = _code_of(made.execute)

    async def run(args: dict[str, Any], context: ToolContext) -> ToolOutcome:
        signal = CancelSignal()
        ctx = ToolCallContext(context.session, context.call, signal, _shown(context))
        try:
            with with_references(await loaded(made.parameters, args, context)):
                if code is None:
                    value = await asyncio.to_thread(made.invoke, args, ctx, context)
                    value = await value if inspect.isawaitable(value) else value
                else:
                    with _watch.watching(made.name, code):
                        value = await made.invoke(args, ctx, context)
        except ReferenceMissing as error:
            return Failed(str(error))
        except asyncio.CancelledError:
            signal.cancel("the call was stopped")
            raise
        return await kept(value, context) if isinstance(value, Ref) else outcome_of(value)

    return Tool(
        name=made.name,
        description=made.description,
        parameters=made.parameters,
        run=run,
        effect=made.effect,
        timeout=made.timeout,
        requires_approval=made.requires_approval,
        source=made.source,
        approval=made.approval,
    )


def _shown(context: ToolContext) -> Callable[[str], None]:
    """Shows progress; a function that runs in a thread may call it too."""
    loop = asyncio.get_running_loop()

    def show(text: str) -> None:
        loop.call_soon_threadsafe(context.output, text)

    return show


def _code_of(execute: Callable[..., Any]) -> Any:
    """The code of an async function; None of one that has to run in a thread."""
    found: Any = inspect.unwrap(execute)
    while hasattr(found, "func"):  # of functools.partial
        found = found.func
    for one in (found, type(found).__call__):
        if inspect.iscoroutinefunction(one):
            return one.__code__
    return None
