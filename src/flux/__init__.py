"""Flux: LLM agents as durable resources, on a durable workflow engine.

Agents in code: `create_agent`, `init_agent`, `tool`. Workflows: `workflow`, `task`, `pause`, and `flux.tasks`; an agent
as a task is `flux.tasks.ai.agent`. A server: `FluxClient`, `SyncFluxClient`. Events are in `flux.events`, errors in
`flux.errors`, models for tests in `flux.testing`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from flux.agents.code.errors import AbortError as AbortError
    from flux.agents.code.errors import ResultUnavailableError as ResultUnavailableError
    from flux.agents.code.stores import SessionStore as SessionStore
    from flux.agents.code.types import PromptImage as PromptImage
    from flux.agents.code.types import PromptModel as PromptModel
    from flux.agents.code.types import PromptResponse as PromptResponse
    from flux.agents.code.types import PromptResult as PromptResult
    from flux.agents.code.types import PromptUsage as PromptUsage
    from flux.agents.define.agent import AgentCreateContext as AgentCreateContext
    from flux.agents.define.agent import CreatedAgent as CreatedAgent
    from flux.agents.define.definition import ThinkingLevel as ThinkingLevel
    from flux.agents.define.mcp import McpServerConnection as McpServerConnection
    from flux.agents.define.mcp import connect_mcp_server as connect_mcp_server
    from flux.agents.define.profile import AgentProfile as AgentProfile
    from flux.agents.define.profile import AgentRuntimeConfig as AgentRuntimeConfig
    from flux.agents.define.profile import CompactionConfig as CompactionConfig
    from flux.agents.define.profile import define_agent_profile as define_agent_profile
    from flux.agents.define.skills import SkillReference as SkillReference
    from flux.agents.define.skills import load_skill as load_skill
    from flux.agents.define.tool import ToolCallContext as ToolCallContext
    from flux.agents.define.tool import ToolDefinition as ToolDefinition
    from flux.agents.define.tool import define_tool as define_tool
    from flux.agents.define.tool import tool as tool
    from flux.agents.harness.calls import CallHandle as CallHandle
    from flux.agents.harness.creating import create_agent as create_agent
    from flux.agents.harness.dispatching import DispatchReceipt as DispatchReceipt
    from flux.agents.harness.dispatching import dispatch as dispatch
    from flux.agents.harness.harness import Harness as Harness
    from flux.agents.harness.harness import init_agent as init_agent
    from flux.agents.harness.session import Session as Session
    from flux.client import FluxClient as FluxClient
    from flux.client import PyFlueClient as PyFlueClient
    from flux.client import SyncFluxClient as SyncFluxClient
    from flux.engine.dispatching.pools import ResourceRequest as ResourceRequest
    from flux.engine.schedules import cron as cron
    from flux.engine.schedules import interval as interval
    from flux.engine.schedules import once as once
    from flux.engine.workflows.context import ExecutionContext as ExecutionContext
    from flux.engine.workflows.flow import call as call
    from flux.engine.workflows.options import TaskMetadata as TaskMetadata
    from flux.engine.workflows.pause import pause as pause
    from flux.engine.workflows.task import task as task
    from flux.engine.workflows.workflow import workflow as workflow
    from flux.errors import SessionBusyError as SessionBusyError
    from flux.models.configured import configure_provider as configure_provider
    from flux.sandboxes.base import FileStat as FileStat
    from flux.sandboxes.base import SandboxFactory as SandboxFactory
    from flux.sandboxes.base import ShellResult as ShellResult
    from flux.tools.cancel import CancelSignal as CancelSignal
    from flux.tools.skill import Skill as Skill

#: What `flux` offers, and where it is: found when it is asked for, so that `import flux` costs nothing.
_PLACES = {
    "AbortError": "flux.agents.code.errors",
    "AgentCreateContext": "flux.agents.define.agent",
    "AgentProfile": "flux.agents.define.profile",
    "AgentRuntimeConfig": "flux.agents.define.profile",
    "CallHandle": "flux.agents.harness.calls",
    "CancelSignal": "flux.tools.cancel",
    "CompactionConfig": "flux.agents.define.profile",
    "CreatedAgent": "flux.agents.define.agent",
    "DispatchReceipt": "flux.agents.harness.dispatching",
    "ExecutionContext": "flux.engine.workflows.context",
    "FileStat": "flux.sandboxes.base",
    "FluxClient": "flux.client",
    "Harness": "flux.agents.harness.harness",
    "McpServerConnection": "flux.agents.define.mcp",
    "PromptImage": "flux.agents.code.types",
    "PromptModel": "flux.agents.code.types",
    "PromptResponse": "flux.agents.code.types",
    "PromptResult": "flux.agents.code.types",
    "PromptUsage": "flux.agents.code.types",
    "PyFlueClient": "flux.client",
    "ResourceRequest": "flux.engine.dispatching.pools",
    "ResultUnavailableError": "flux.agents.code.errors",
    "SandboxFactory": "flux.sandboxes.base",
    "Session": "flux.agents.harness.session",
    "SessionBusyError": "flux.errors",
    "SessionStore": "flux.agents.code.stores",
    "ShellResult": "flux.sandboxes.base",
    "Skill": "flux.tools.skill",
    "SkillReference": "flux.agents.define.skills",
    "SyncFluxClient": "flux.client",
    "TaskMetadata": "flux.engine.workflows.options",
    "ThinkingLevel": "flux.agents.define.definition",
    "ToolCallContext": "flux.agents.define.tool",
    "ToolDefinition": "flux.agents.define.tool",
    "call": "flux.engine.workflows.flow",
    "configure_provider": "flux.models.configured",
    "connect_mcp_server": "flux.agents.define.mcp",
    "create_agent": "flux.agents.harness.creating",
    "cron": "flux.engine.schedules",
    "define_agent_profile": "flux.agents.define.profile",
    "define_tool": "flux.agents.define.tool",
    "dispatch": "flux.agents.harness.dispatching",
    "init_agent": "flux.agents.harness.harness",
    "interval": "flux.engine.schedules",
    "load_skill": "flux.agents.define.skills",
    "once": "flux.engine.schedules",
    "pause": "flux.engine.workflows.pause",
    "task": "flux.engine.workflows.task",
    "tool": "flux.agents.define.tool",
    "workflow": "flux.engine.workflows.workflow",
}

__all__ = [*_PLACES, "__version__"]  # noqa: PLE0604 - names of what is found on demand


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _PLACES:
        raise AttributeError(f"module 'flux' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
