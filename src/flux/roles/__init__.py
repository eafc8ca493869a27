"""Roles: coordinator, planner, executor and specialist, typed plans, references, and the runtime that runs them."""

from __future__ import annotations

from flux.agents.define.tool import ToolDefinition as ToolDefinition
from flux.agents.define.tool import define_tool as define_tool
from flux.roles.plans import PlanSpec as PlanSpec
from flux.roles.plans import TaggedUnion as TaggedUnion
from flux.roles.plans import define_plan as define_plan
from flux.roles.prompts import LayeredPrompt as LayeredPrompt
from flux.roles.prompts import layered_prompt as layered_prompt
from flux.roles.results import Event as Event
from flux.roles.results import PendingApproval as PendingApproval
from flux.roles.results import RunResult as RunResult
from flux.roles.runtime import Runtime as Runtime
from flux.roles.runtime import define_runtime as define_runtime
from flux.roles.specs import AgentSpec as AgentSpec
from flux.roles.specs import ModelSpec as ModelSpec
from flux.roles.specs import define_coordinator as define_coordinator
from flux.roles.specs import define_executor as define_executor
from flux.roles.specs import define_planner as define_planner
from flux.roles.specs import define_specialist as define_specialist
from flux.roles.topology import RuntimeSpec as RuntimeSpec
from flux.roles.topology import TenantSpec as TenantSpec
from flux.roles.topology import define_tenant as define_tenant
from flux.tools.references import Ref as Ref
from flux.tools.rules import ApprovalRequest as ApprovalRequest
