"""Kits: what a part of an agent (skills, memory, a plan, ...) brings to one of its sessions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from flux.agents.define.approval import Predicate
from flux.agents.define.definition import AgentDefinition
from flux.agents.history.window import WorkingMemory
from flux.engine.workflows.task import task
from flux.events import ContextFrozen
from flux.messages import ImagePart
from flux.models.base import OutputSchema
from flux.sandboxes.base import Sandbox
from flux.tools.base import Resource, Tool
from flux.tools.skill import Skill


class Kit(Struct, frozen=True):
    """Tools for the model, a section of the system prompt, and readers by scheme.

    The section is Markdown with its own heading; a function of it is asked whenever the prompt is frozen.
    A part that changes by itself says so: `stale` when it would bring something else by now, `outdates` when a
    frozen prompt has to be made anew for what it brings. `absent` says why tools whose names begin so are not here.
    `withheld` tells which tools the session's owner may not let an agent use, whoever brings them.
    `predicates` are those that rules of its tools name.
    `readable`: there is something behind its readers now, so a model needs a tool that reads addresses.
    """

    tools: tuple[Tool, ...] = ()
    prompt: str | Callable[[], str] = ""
    resources: Mapping[str, Resource] = {}
    stale: Callable[[], bool] | None = None
    outdates: Callable[[ContextFrozen], bool] | None = None
    absent: Mapping[str, str] = {}
    withheld: Callable[[str], bool] | None = None
    readable: bool = False
    predicates: Mapping[str, Predicate] = {}


class Code(Struct, frozen=True):
    """What an agent of the application acts in and with: its sandbox, tools and skills, and its sub-agents by name.

    `result` are the tools of a structured answer. `options` are those of a message that gives it work, `images` what
    stands beside its text.
    """

    sandbox: Sandbox
    tools: tuple[Tool, ...] = ()
    skills: tuple[Skill, ...] = ()
    agents: Mapping[str, Given] = {}
    result: tuple[Tool, ...] = ()
    options: Mapping[str, Any] = {}
    images: tuple[ImagePart, ...] = ()


class Given(Struct, frozen=True):
    """An agent that is made in code: its definition, and what a definition cannot hold.

    `tasks` are its tools, `colleagues` whom it can delegate to beside those that are stored, `output` is what its
    answers must look like, `memory` how much of the messages it is shown, `code` what one of `create_agent` has.
    `by_code`: the code of a workflow made it.
    """

    definition: AgentDefinition
    tasks: tuple[task[..., Any], ...] = ()
    colleagues: Mapping[str, Given] = {}
    output: OutputSchema | None = None
    memory: WorkingMemory | None = None
    code: Code | None = None
    by_code: bool = False
