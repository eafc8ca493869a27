"""What the bundled tools share: their configuration, their directory, and how a file error reads."""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from flux.errors import DefinitionInvalid
from flux.sandboxes.base import Entry, HostSandbox, Sandbox
from flux.suggest import unknown
from flux.tools.base import Effect, Failed, Later, NeedsInput, Tool, ToolContext, ToolOutcome
from flux.tools.function import tool_of
from flux.tools.kept import cut

DEFAULT_BLOCKLIST = (
    "sudo",
    "rm -rf /",
    "rm -fr /",
    "rm -rf ~",
    "mkfs",
    "mkfs.ext4",
    ":(){ :|:& };:",
    ":(){:|:&};:",
)
"""Commands that `shell` refuses by default. A courtesy against mistakes, not a boundary: the sandbox is."""

SKIPPED = frozenset({".git", "node_modules", ".venv"})
"""Directories that searches and trees do not enter."""

MAX_ENTRIES = 100_000
"""Files and directories a walk looks at."""

ASK_ON_HOST = ("shell", "write_file", "edit_file")
"""Tools that ask a person first where nothing is set and no sandbox keeps them from the host."""

_DEPTH = 64


class GroupConfig(Struct, frozen=True):
    """How a group of bundled tools is set up.

    `workspace` is relative to the sandbox's directory. `timeout` is in seconds: of each call, and the
    longest a shell command may take. `requires_approval`: all tools of the group, those named, or by
    default those of ASK_ON_HOST while the sandbox is `local`.
    """

    workspace: str = "."
    timeout: Annotated[float, Meta(gt=0, le=86_400)] = 30
    max_output_chars: Annotated[int, Meta(ge=200)] = 100_000
    blocklist: tuple[str, ...] = DEFAULT_BLOCKLIST
    requires_approval: bool | tuple[str, ...] | None = None

    @classmethod
    def of(cls, group: str, given: Any) -> GroupConfig:
        """The settings of a definition. DefinitionInvalid names what is wrong."""
        if given is None:
            return cls()
        if not isinstance(given, Mapping):
            raise DefinitionInvalid(f"tools: the settings of {group} must be a mapping")
        for name in given:
            if name not in cls.__struct_fields__:
                raise DefinitionInvalid(f"tools: {unknown(f'{group} setting', str(name), cls.__struct_fields__)}")
        try:
            return msgspec.convert(dict(given), cls)
        except msgspec.ValidationError as error:
            raise DefinitionInvalid(f"tools: {group}: {error}") from error


def builtin(
    function: Callable[..., Awaitable[Any]],
    config: GroupConfig,
    effect: Effect,
    *,
    description: str = "",
    grace: float = 0.0,
) -> Tool:
    """A bundled tool: acts in the configured workspace, cuts what it says, explains file errors.

    `grace` is the time in seconds a tool with its own timeout needs to end.
    """
    tool = tool_of(function, effect=effect, timeout=config.timeout + grace)
    approval = config.requires_approval
    asks = approval if isinstance(approval, bool) else tool.name in (ASK_ON_HOST if approval is None else approval)

    async def run(args: dict[str, Any], context: ToolContext) -> ToolOutcome:
        try:
            sandbox = await _rooted(context.sandbox, config.workspace)
            outcome = await tool.run(args, msgspec.structs.replace(context, sandbox=sandbox))
        except OSError as error:
            return Failed(explain(error))
        except UnicodeEncodeError:
            return Failed("the text holds a lone surrogate, which no UTF-8 file can hold")
        if isinstance(outcome, NeedsInput | Later):
            return outcome
        return msgspec.structs.replace(outcome, content=await cut(outcome.content, config.max_output_chars, context))

    return msgspec.structs.replace(
        tool,
        run=run,
        requires_approval=asks,
        max_output_chars=config.max_output_chars,
        description=description or tool.description,
    )


async def _rooted(sandbox: Sandbox, workspace: str) -> Sandbox:
    if workspace == ".":
        return sandbox
    if not isinstance(sandbox, HostSandbox):
        raise OSError(f"the sandbox {sandbox.name} has no other workspace than its own")
    return await asyncio.to_thread(sandbox.rooted, workspace)


def explain(error: OSError) -> str:
    """A file error on one line: the path and what is wrong with it."""
    if error.strerror is None:
        return str(error)
    reason = error.strerror.lower()
    return f"{error.filename}: {reason}" if error.filename is not None else reason


def joined(base: str, relative: str) -> str:
    """A path as a model may use it again."""
    return posixpath.normpath(posixpath.join(base, relative))


async def walk(sandbox: Sandbox, path: str, depth: int = _DEPTH) -> tuple[Entry, ...]:
    """What is below a directory, see HostSandbox.walk; at most MAX_ENTRIES, SKIPPED is not entered."""
    if isinstance(sandbox, HostSandbox):
        return await sandbox.walk(path, skip=SKIPPED, depth=depth, limit=MAX_ENTRIES)
    found: list[Entry] = []
    await _walk(sandbox, path, "", depth, found)
    return tuple(found)


async def _walk(sandbox: Sandbox, path: str, prefix: str, depth: int, found: list[Entry]) -> None:
    for name in await sandbox.list(path):
        if len(found) >= MAX_ENTRIES:
            return
        inner = joined(path, name)
        try:
            look = await sandbox.stat(inner)
        except OSError:
            found.append(Entry(prefix + name, "link"))
            continue
        if look.is_symbolic_link:
            found.append(Entry(prefix + name, "link"))
        elif not look.is_directory:
            found.append(Entry(prefix + name, "file" if look.is_file else "other"))
        else:
            found.append(Entry(prefix + name, "directory"))
            if name not in SKIPPED and depth > 1:
                await _walk(sandbox, inner, f"{prefix}{name}/", depth - 1, found)
