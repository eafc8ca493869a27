"""From the spec of a runtime to a process: its settings and variables, its models, and what it is given by name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from flux.agents.define.named import Registry
from flux.agents.plans.source import model_check
from flux.errors import DefinitionInvalid
from flux.models.registry import BUILT_IN, ModelFactory
from flux.roles.topology import RuntimeSpec
from flux.settings import Provider, Settings, load_settings
from flux.suggest import unknown

#: What may be said of a provider.
TRANSPORT = ("base_url", "api_key_env", "retries")


class Opening(Struct, frozen=True):
    """What a runtime runs on. None: the settings in force here, the variables of this process, this directory."""

    settings: Settings | None = None
    environment: Mapping[str, str] | None = None
    workspace: Path | None = None
    observer: Any = None
    worker: bool = True


def check_providers(providers: Mapping[str, Any], faults: list[str]) -> None:
    """Say what is wrong with providers."""
    for name, given in providers.items():
        if callable(given):
            continue
        if not isinstance(given, Mapping):
            faults.append(f"providers: {name} must be a mapping, or a function that makes a model")
            continue
        faults += [
            f"providers: {name}: {unknown('field', str(key), TRANSPORT)}" for key in given if key not in TRANSPORT
        ]
        if name not in BUILT_IN and name != "scripted" and "base_url" not in given:
            faults.append(f"providers: {name} is none that Flux knows; give its base_url")
        retries = given.get("retries", 0)
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            faults.append(f"providers: {name}: retries must be a whole number of at least 0, not {retries!r}")


def environment_of(spec: RuntimeSpec, opening: Opening) -> dict[str, str]:
    """The variables of the process, those of providers that Flux knows as the runtime says."""
    found = dict(os.environ if opening.environment is None else opening.environment)
    for name, given in _transports(spec):
        known = BUILT_IN.get(name)
        if known is None:
            continue
        if "base_url" in given:
            found[known.base_variable] = str(given["base_url"])
        key = found.get(str(given.get("api_key_env", "")))
        if key is not None and known.keys:
            found[known.keys[0]] = key
    return found


def settings_of(spec: RuntimeSpec, opening: Opening, environment: Mapping[str, str]) -> Settings:
    """The settings, with the runtime's own providers and retries."""
    settings = load_settings(environment) if opening.settings is None else opening.settings
    own = dict(settings.providers)
    for name, given in _transports(spec):
        if name not in BUILT_IN and "base_url" in given:
            own[name] = Provider(str(given["base_url"]), given.get("api_key_env"))
    retries = [given["retries"] for _, given in _transports(spec) if "retries" in given]
    attempts = max(retries) + 1 if retries else settings.model_attempts
    return msgspec.structs.replace(settings, providers=own, model_attempts=attempts)


def factories_of(spec: RuntimeSpec) -> dict[str, ModelFactory]:
    """Models that the application makes itself."""
    return {name: given for name, given in spec.providers.items() if callable(given)}


def registry_of(spec: RuntimeSpec) -> Registry:
    """What definitions find by name in the process."""
    plans = {agent.plan.name: model_check(agent.plan.model) for agent in spec.agents if agent.plan is not None}
    return Registry(dict(spec.predicates), plans)


def named_agent(spec: RuntimeSpec, name: str) -> str:
    """The name, if there is such an agent.

    :raises DefinitionInvalid: there is none
    """
    if spec.agent(name) is None:
        raise DefinitionInvalid(unknown("agent", name, [agent.name for agent in spec.agents]))
    return name


def _transports(spec: RuntimeSpec) -> list[tuple[str, Mapping[str, Any]]]:
    return [(name, given) for name, given in spec.providers.items() if isinstance(given, Mapping)]
