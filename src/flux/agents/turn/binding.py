"""Binding: a definition becomes live models, tools, a sandbox and a prompt, in this process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from flux.agents.define.approval import Predicate, judged
from flux.agents.define.definition import AgentDefinition
from flux.agents.define.memory import TOOL_NAMES as MEMORY_TOOLS
from flux.agents.define.named import Registry
from flux.agents.define.shipped import check_files, check_names, is_file
from flux.agents.history.plan import TOOLS as PLAN_TOOLS
from flux.agents.plans.source import Named, chosen
from flux.agents.turn import gate
from flux.agents.turn.kits import Kit
from flux.errors import DefinitionInvalid, FluxError, MissingKey
from flux.events import ContextFrozen
from flux.messages import Message, ToolCall
from flux.models.base import Model, ModelRequest, Models, ToolSchema
from flux.sandboxes.base import Sandbox
from flux.sandboxes.factories import isolation_problem
from flux.sandboxes.host import LocalSandbox
from flux.suggest import unknown
from flux.tools.base import Tool, ToolContext
from flux.tools.files import READER, resource_reader
from flux.tools.mcp.config import server_names, tool_name
from flux.tools.rules import ApprovalRequest
from flux.tools.schema import validate
from flux.tools.skills import USE_SKILL

WORKSPACE_NOTES = "AGENTS.md"
MAX_NOTES = 32_000


class Bound:
    """An agent that can run here."""

    def __init__(
        self,
        definition: AgentDefinition,
        models: Models,
        tools: Mapping[str, Tool],
        kits: Sequence[Kit] = (),
        sandbox: Sandbox | None = None,
        predicates: Mapping[str, Predicate] | None = None,
    ) -> None:
        self.definition = definition
        self.predicates = dict(predicates or {})
        for kit in kits:
            self.predicates |= kit.predicates
        self._offers = [kit.withheld for kit in kits if kit.withheld is not None]
        offered = {} if definition.approval_mode == "never" else _together(tools, kits)
        self.tools = {name: tool for name, tool in offered.items() if not any(held(name) for held in self._offers)}
        self.resources = {scheme: read for kit in kits for scheme, read in kit.resources.items()}
        self.absent = {start: why for kit in kits for start, why in kit.absent.items()}
        self._models = models
        self._sandbox = sandbox
        self._sections = [kit.prompt for kit in kits]
        self._kits = kits

    def equipped(self, kits: Sequence[Kit], sandbox: Sandbox) -> Bound:
        """The same agent with what a session's kits bring, acting in its sandbox.

        :raises DefinitionInvalid: two of them bring a tool of the same name
        """
        return Bound(self.definition, self._models, self.tools, kits, sandbox, self.predicates)

    @property
    def stale(self) -> bool:
        """Whether a kit would bring something else by now."""
        return any(kit.stale is not None and kit.stale() for kit in self._kits)

    def outdates(self, context: ContextFrozen) -> bool:
        """Whether a frozen prompt has to be made anew."""
        if self._offers and {tool["name"] for tool in context.tools} != self.tools.keys():
            return True
        return any(kit.outdates is not None and kit.outdates(context) for kit in self._kits)

    def model(self, name: str) -> Model:
        """The live model of a "provider/model" name."""
        return self._models.get(name)

    def arguments(self, call: ToolCall) -> dict[str, Any]:
        """A call's arguments as the tool gets them: repaired where the schema says how."""
        return validate(self.tools[call.name].schema, call.args).args

    async def verdicts(self, name: str, args: dict[str, Any]) -> dict[str, bool]:
        """What predicates say of a call, where its rules ask some."""
        need, _ = gate.needed(self.tools[name], args, self.definition)
        request = ApprovalRequest("tools", self.definition.name, name, args)
        return await judged(need.predicates, self.predicates, request)

    def context(self, *, session: str, call: str, output: Callable[[str], None], **more: Any) -> ToolContext:
        """What a running call may use; `more` are further fields of the context."""
        if self._sandbox is None:
            raise FluxError(debug="a call of an agent that acts nowhere")
        return ToolContext(
            session=session, call=call, sandbox=self._sandbox, output=output, resources=self.resources, **more
        )

    async def freeze(self) -> ContextFrozen:
        """The prompt in front of the messages, as it is now."""
        system = self.definition.system_prompt
        notes = await self._notes()
        if notes:
            system += f"\n\n# {WORKSPACE_NOTES} of the workspace\n\n{notes}"
        sections = [told if isinstance(told, str) else told() for told in self._sections]
        system = "\n\n".join(part for part in (system, *sections) if part)
        tools = tuple(_frozen(tool) for tool in self.tools.values())
        digest = hashlib.sha256(msgspec.json.encode([system, tools])).hexdigest()[:32]
        return ContextFrozen(system=system, tools=tools, digest=digest)

    def request(self, context: ContextFrozen, messages: tuple[Message, ...], *, final: bool) -> ModelRequest:
        """The model call that these messages ask for."""
        return ModelRequest(
            system=context.system,
            messages=messages,
            tools=tuple(msgspec.convert(tool, ToolSchema) for tool in context.tools),
            max_tokens=self.definition.max_tokens,
            reasoning=self.definition.reasoning,
            final=final,
            cache_key=self.definition.prompt_cache_key,
        )

    async def _notes(self) -> str:
        if not self.tools or self._sandbox is None or not await self._sandbox.exists(WORKSPACE_NOTES):
            return ""
        try:
            return (await self._sandbox.read(WORKSPACE_NOTES)).decode(errors="replace")[:MAX_NOTES]
        except OSError:
            return ""


class Binder:
    """Binds definitions in this process; `workspace` is where sessions act that name no other directory.

    `tools` are tools made in code; a definition asks for one by its key, as for a bundled one. `registry` holds what
    else the application gives.
    """

    def __init__(
        self,
        models: Models,
        workspace: Path,
        environment: Mapping[str, str],
        tools: Mapping[str, Tool] | None = None,
        registry: Registry | None = None,
    ) -> None:
        self._models = models
        self._own = dict(tools or {})
        self.named = Named(self._own, registry or Registry())
        self.workspace = str(workspace.absolute())
        self.environment = environment

    def bind(self, definition: AgentDefinition, sandbox: str) -> Bound:
        """Make a definition live, with the tools as they are in the sandbox of that name.

        :raises DefinitionInvalid: its tools do not exist here
        """
        tools, predicates = tools_of(definition, self._own, sandbox), self.named.predicates_of(definition)
        return Bound(definition, self._models, tools, predicates=predicates)

    def of(self, definition: AgentDefinition) -> Bound:
        """Make an agent of the application live; its tools come as a kit."""
        return Bound(definition, self._models, {})

    def check(self, definition: AgentDefinition) -> None:
        """Everything that can be known before the first run.

        :raises DefinitionInvalid: a tool, model, provider or directory does not exist
        """
        self.problems(definition)
        self.named.check(definition)
        offered = self.offered(definition)
        for name in definition.tool_approvals:
            if name not in offered and not _of_server(name, definition):
                raise DefinitionInvalid(f"tool_approvals: {unknown('tool', name, offered)}")
        for name in definition.agents:
            if any(name == one.name for one in definition.subagents):
                raise DefinitionInvalid(f"agents: {name} is in subagents too; rename one of them")
        for one in definition.subagents:
            if not one.description:
                raise DefinitionInvalid(f"subagents: {one.name} has no description, by which a model chooses")
            if one.workflow_file is not None:
                raise DefinitionInvalid(f"subagents: {one.name} has a workflow_file; only a stored agent can have one")
            self.check(one)
        _check_place(definition, self.workspace)

    def offered(self, definition: AgentDefinition) -> list[str]:
        """The names of the tools of an agent, but for those of its MCP servers and what every session has.

        :raises DefinitionInvalid: a tool does not exist, or two have one name
        """
        named = self.tools(definition)
        brought = _of_kits(definition, named)
        files = check_files(definition, {*named, *brought, USE_SKILL})
        check_names(definition.skills, {*named, *brought, *files})
        skilled = (USE_SKILL,) if definition.skills or definition.skills_dir else ()
        return [*named, *brought, *files, *skilled]

    def tools(self, definition: AgentDefinition) -> dict[str, Tool]:
        """The tools that an agent names; those of its files are not among them.

        :raises DefinitionInvalid: a tool does not exist
        """
        return tools_of(definition, self._own)

    def problems(self, definition: AgentDefinition) -> list[str]:
        """What keeps the agent from running here now, but may be put right without changing it.

        :raises DefinitionInvalid: a provider does not exist
        """
        missing: list[str] = []
        summariser = definition.compaction.model if definition.compaction else None
        for name in (definition.model, *definition.fallback_models, *([summariser] if summariser else [])):
            try:
                self._models.check(name)
            except MissingKey as error:
                missing.append(str(error))
        if definition.sandbox == "isolated" and (problem := isolation_problem()):
            missing.append(f"sandbox: isolated cannot work here: {problem}")
        return missing

    async def preload(self, definition: AgentDefinition) -> None:
        """Make the first call of the agent's model fast."""
        with suppress(FluxError):
            await self._models.get(definition.model).preload()


def _check_place(definition: AgentDefinition, workspace: str) -> None:
    """Refuse a directory that is none here; those of a virtual sandbox are in it alone."""
    if definition.sandbox == "virtual":
        if definition.cwd is not None:
            raise DefinitionInvalid("cwd: a virtual sandbox has a directory of its own, /workspace; leave cwd out")
        return
    try:
        LocalSandbox(Path(workspace) / Path(definition.cwd or ".").expanduser())
    except OSError as error:
        raise DefinitionInvalid(f"cwd: {error}") from error


def tools_of(definition: AgentDefinition, own: Mapping[str, Tool], sandbox: str = "local") -> dict[str, Tool]:
    """The tools an agent names, in a stable order: bundled ones as they are in a sandbox, then those of `own`.

    :raises DefinitionInvalid: a tool does not exist
    """
    return chosen([entry for entry in definition.tools if not is_file(entry)], own, sandbox)


def _of_server(name: str, definition: AgentDefinition) -> bool:
    """Whether a tool may be one of the agent's MCP servers, which nobody asks before the first run."""
    return any(name.startswith(tool_name(server, "")) for server in server_names(definition.mcp_servers))


def _of_kits(definition: AgentDefinition, tools: Mapping[str, Tool]) -> tuple[str, ...]:
    """The names of the tools that an agent's kits bring, as far as its definition tells.

    :raises DefinitionInvalid: it names another tool that is called so
    """
    brought = [(name, "long-term memory") for name in MEMORY_TOOLS if definition.long_term_memory is not None]
    brought += [(name, "planning") for name in PLAN_TOOLS if definition.planning]
    if definition.plan is not None:
        brought += [(name, "plan") for name in definition.plan.tool_names]
    brought += [("call_agent", "routes")] * bool(definition.routes)
    for name, part in brought:
        if name in tools:
            raise DefinitionInvalid(f"tools: {name} is also a tool of its {part}; leave one of them out")
    return tuple(name for name, _ in brought)


def _together(tools: Mapping[str, Tool], kits: Sequence[Kit]) -> dict[str, Tool]:
    found = dict(tools)
    for tool in (tool for kit in kits for tool in kit.tools):
        if tool.name in found:
            raise DefinitionInvalid(f"two tools are called {tool.name}: of {found[tool.name].source}, {tool.source}")
        found[tool.name] = tool
    if READER not in found and any(kit.readable for kit in kits):
        found[READER] = resource_reader()
    return found


def _frozen(tool: Tool) -> dict[str, Any]:
    """A tool as it stands in a frozen prompt."""
    schema: dict[str, Any] = msgspec.to_builtins(ToolSchema(tool.name, tool.description, tool.parameters))
    return schema | ({"mark": tool.mark} if tool.mark else {})
