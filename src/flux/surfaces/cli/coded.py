"""Runtimes in code, by their `module:attribute`, for commands that take them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, Protocol, cast

from flux.agents.define.definition import AgentDefinition
from flux.agents.define.named import load
from flux.agents.define.yaml import to_yaml
from flux.errors import InvalidInput
from flux.suggest import unknown


class Agent(Protocol):
    """One of its agents."""

    name: str


class Spec(Protocol):
    """What it is made of."""

    agents: Sequence[Agent]


class Coded(Protocol):
    """What is asked of a runtime here; `flux.roles` makes them."""

    spec: Spec

    def definition(self, name: str) -> AgentDefinition:
        """One of its agents as data."""
        ...

    def on(self, **options: Any) -> Any:
        """The same on other settings."""
        ...


def runtime_at(reference: str) -> Coded:
    """The runtime of a `module:attribute`; modules of this directory are found.

    :raises DefinitionInvalid: there is no such thing
    :raises InvalidInput: it is no runtime
    """
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    found = load(reference)
    if not all(hasattr(found, name) for name in ("spec", "definition", "on")):
        raise InvalidInput(f"{reference} is no runtime that define_runtime has made")
    return cast(Coded, found)


def exported(reference: str, agent: str | None) -> str:
    """The YAML of an agent of a runtime: of the one that is named, else of the only one.

    :raises InvalidInput: it is not said which
    :raises DefinitionInvalid: something of it cannot be named
    """
    runtime = runtime_at(reference)
    names = [one.name for one in runtime.spec.agents]
    if agent is None and len(names) > 1:
        raise InvalidInput(f"{reference} has several agents; choose one with --agent: {', '.join(names)}")
    chosen = agent or names[0]
    if chosen not in names:
        raise InvalidInput(unknown("agent", chosen, names))
    return to_yaml(runtime.definition(chosen))
