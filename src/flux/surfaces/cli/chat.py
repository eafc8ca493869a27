"""`flux chat`: the one-step way in."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from flux.client import FluxClient, SessionHandle
from flux.errors import AgentNotFound, InvalidInput, MissingKey
from flux.settings import Settings
from flux.surfaces.cli.connect import connect, run
from flux.surfaces.cli.options import server_option, settings_for

FIRST_AGENT = "flux"
DEMO_MODEL = "scripted/demo"
#: The model of the bundled agent, by the variable that makes it usable; the first that is set counts.
FIRST_MODELS = {
    "ANTHROPIC_API_KEY": "anthropic/claude-sonnet-5-5",
    "OPENAI_API_KEY": "openai/gpt-5.6-terra",
    "GOOGLE_API_KEY": "google/gemini-3.8-flash",
    "GEMINI_API_KEY": "google/gemini-3.8-flash",
    "OPENROUTER_API_KEY": "openrouter/openrouter/auto",
}
NO_KEY = f"No provider key is set, so {DEMO_MODEL} answers; set ANTHROPIC_API_KEY or OPENAI_API_KEY for a real model."
OLLAMA_SECONDS = 0.3


@click.command()
@click.argument("agent", required=False, metavar="[AGENT | FILE.yaml]")
@click.option("--model", help="Use this model (provider/model) for the bundled agent.")
@click.option("--session", metavar="ID", help="Go on with a session.")
@server_option
def chat(agent: str | None, model: str | None, session: str | None, server: str | None) -> int:
    """Talk to an agent in this terminal.

    AGENT is the name of a stored agent; FILE.yaml is applied first. Without either, a bundled agent that
    can look at and change files in the current directory answers.
    """
    settings = settings_for(server)
    return run(_chat(settings, agent, model, session))


async def _chat(settings: Settings, agent: str | None, model: str | None, session: str | None) -> int:
    async with connect(settings) as client:
        if session is not None:
            return await talk(client, settings, None, session)
        notice = None
        if agent is None:
            name, notice = await _apply_first_agent(client, model)
        elif _is_file(agent):
            name = await _apply_file(client, Path(agent))
        else:
            name = agent
        return await talk(client, settings, name, None, notice)


async def talk(
    client: FluxClient, settings: Settings, agent: str | None, session: str | None, notice: str | None = None
) -> int:
    """Open the terminal on a new session of an agent, or on a session."""
    from flux.surfaces.terminal.chat import chat as talk_here
    from flux.surfaces.terminal.plain import pipe

    handle: SessionHandle | None = None
    if session is not None:
        handle = client.session(session)
        agent = (await handle.info())["agent_name"]
    name = agent or ""
    _refuse_problems(await _get_agent(client, name, resumed=handle is not None))
    if not sys.stdin.isatty():
        text = sys.stdin.read()
        return await pipe(client, agent=name, session=handle, text=text, resume_command=_resume_command)
    return await talk_here(
        client,
        agent=name,
        session=handle,
        resume_command=_resume_command,
        notice=notice,
        history=settings.home / "history",
    )


async def _get_agent(client: FluxClient, name: str, *, resumed: bool) -> Mapping[str, Any]:
    try:
        return await client.get(f"/agents/{name}")
    except AgentNotFound:
        if resumed:  # the session goes on with the version it began with
            return {}
        raise


def _refuse_problems(agent: Mapping[str, Any]) -> None:
    problems = agent.get("problems") or []
    if problems:
        raise MissingKey("; ".join(problems))


def _resume_command(id: str) -> str:
    return f"flux agent session resume {id}"


def _is_file(agent: str) -> bool:
    return agent.endswith((".yaml", ".yml")) or os.sep in agent or Path(agent).is_dir()


async def _apply_file(client: FluxClient, path: Path) -> str:
    from flux.agents.define.yaml import define_from

    definition = define_from(path, os.environ)
    await client.put(f"/agents/{definition.name}", definition.model_dump(mode="json", exclude_unset=True), create=True)
    return definition.name


async def _apply_first_agent(client: FluxClient, model: str | None) -> tuple[str, str | None]:
    if model is not None and "/" not in model:
        raise InvalidInput(f"--model {model!r} must be provider/model, for example anthropic/claude-sonnet-5-5")
    found = model or first_model(os.environ) or await _ollama_model(os.environ)
    await client.put(f"/agents/{FIRST_AGENT}", first_agent(found or DEMO_MODEL), create=True)
    return FIRST_AGENT, None if found else NO_KEY


def first_model(environment: Mapping[str, str]) -> str | None:
    """The model a newcomer's environment can use, None when there is no key."""
    return next((model for variable, model in FIRST_MODELS.items() if environment.get(variable)), None)


async def _ollama_model(environment: Mapping[str, str]) -> str | None:
    """The first model of an Ollama on this machine, None when there is none."""
    import httpx

    from flux.models.registry import ollama_address

    url = ollama_address(environment.get("OLLAMA_HOST") or "127.0.0.1")
    try:
        async with httpx.AsyncClient(timeout=OLLAMA_SECONDS, trust_env=False) as http:
            models = (await http.get(f"{url}/api/tags")).json()["models"]
        return f"ollama/{models[0]['name']}" if models else None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError):
        return None


def first_agent(model: str) -> dict[str, Any]:
    """The bundled agent: reads freely, asks before it changes anything."""
    return {
        "name": FIRST_AGENT,
        "model": model,
        "description": "Looks at and changes files in the current directory; asks before it changes anything.",
        "system_prompt": "You are a helpful assistant working in the user's current directory. Be concise.",
        "tools": ["system_tools", "ask_user"],
        "tool_approvals": {"shell": True, "write_file": True, "edit_file": True},
    }
