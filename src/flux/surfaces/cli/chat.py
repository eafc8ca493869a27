"""`flux chat`: the one-step way in."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click

from flux.client import FluxClient, SessionHandle
from flux.errors import AgentNotFound, InvalidInput, MissingKey
from flux.settings import Settings
from flux.surfaces.cli.connect import EMBEDDED, connect, run
from flux.surfaces.cli.find import find_session
from flux.surfaces.cli.options import (
    MODEL,
    examples,
    server_option,
    settings_for,
)

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


class Talk(NamedTuple):
    """What to open: an agent or a session, with what, and whether for one message only."""

    agent: str | None = None
    session: str | None = None
    model: str | None = None
    message: str | None = None
    notice: str | None = None


@click.command(epilog=examples("flux chat agent.yaml", "git diff | flux chat -p 'Review this.'", "flux chat -c"))
@click.argument("agent", required=False, metavar="[AGENT | FILE.yaml]")
@click.option("--model", metavar=MODEL, help="Use this model.")
@click.option("-p", "--message", metavar="TEXT", help="Send this and leave; piped input is put behind it.")
@click.option("-c", "--continue", "latest", is_flag=True, help="Go on with the latest session.")
@click.option("--session", metavar="ID", help="Go on with a session; the beginning of its id is enough.")
@server_option
def chat(
    agent: str | None, model: str | None, message: str | None, latest: bool, session: str | None, server: str | None
) -> int:
    """Talk to an agent in this terminal.

    AGENT is the name of a stored agent; FILE.yaml is applied first. Without either, a bundled agent that
    can look at and change files in the current directory answers.
    """
    if model is not None and "/" not in model:
        raise InvalidInput(f"--model {model!r} must be provider/model, for example anthropic/claude-sonnet-5-5")
    settings = settings_for(server)
    return run(_chat(settings, Talk(agent, session, model, message), latest=latest))


async def _chat(settings: Settings, wanted: Talk, *, latest: bool) -> int:
    async with connect(settings) as client:
        if wanted.session is not None or latest:
            id = await find_session(client, wanted.session)
            return await talk(client, settings, wanted._replace(agent=None, session=id))
        if wanted.agent is None:
            return await talk(client, settings, await _first_agent(client, wanted))
        if _is_file(wanted.agent):
            wanted = wanted._replace(agent=await _apply_file(client, Path(wanted.agent)))
        return await talk(client, settings, wanted)


async def talk(client: FluxClient, settings: Settings, wanted: Talk) -> int:
    """Open the terminal on a new session of an agent, or on a session."""
    from flux.surfaces.terminal.chat import chat as talk_here
    from flux.surfaces.terminal.plain import pipe

    handle: SessionHandle | None = None
    name = wanted.agent or ""
    if wanted.session is not None:
        handle = client.session(wanted.session)
        name = (await handle.info())["agent_name"]
    agent = await _get_agent(client, name, resumed=handle is not None)
    if wanted.model is None:
        _refuse_problems(agent)
    if wanted.message is not None or not sys.stdin.isatty():
        text = _piped(wanted.message)
        return await pipe(
            client, agent=name, session=handle, text=text, resume_command=_resume_command, model=wanted.model
        )
    return await talk_here(
        client,
        agent=name,
        session=handle,
        resume_command=_resume_command,
        notice=wanted.notice or _model_notice(wanted.model, agent),
        history=settings.home / "history",
        model=wanted.model,
    )


def _piped(message: str | None) -> str:
    """What `-p` and standard input say together."""
    if sys.stdin.isatty():
        return message or ""
    try:
        given = sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise InvalidInput("the input is not UTF-8 text") from error
    return f"{message}\n\n{given}" if message and given.strip() else message or given


def _model_notice(model: str | None, agent: Mapping[str, Any]) -> str | None:
    named = model or (agent.get("definition") or {}).get("model")
    return f"Model: {named}" if named else None


async def _get_agent(client: FluxClient, name: str, *, resumed: bool) -> Mapping[str, Any]:
    try:
        return await client.get(f"/agents/{name}")
    except AgentNotFound:
        if resumed:  # the session goes on with the version it began with
            return {}
        if " " in name:
            raise AgentNotFound(f"there is no agent {name!r}; to send a message: flux chat -p {name!r}") from None
        raise


def _refuse_problems(agent: Mapping[str, Any]) -> None:
    problems = agent.get("problems") or []
    if problems:
        raise MissingKey("; ".join(problems))


def _resume_command(id: str) -> str:
    return f"flux agent session resume {id}"


def _is_file(agent: str) -> bool:
    return agent.endswith((".yaml", ".yml")) or os.sep in agent or Path(agent).exists()


async def _apply_file(client: FluxClient, path: Path) -> str:
    from flux.agents.define.yaml import define_from

    definition = define_from(path, os.environ, warn=lambda note: click.echo(f"Note: {note}", err=True))
    await client.put(f"/agents/{definition.name}", definition.model_dump(mode="json", exclude_unset=True), create=True)
    return definition.name


async def _first_agent(client: FluxClient, wanted: Talk) -> Talk:
    """The bundled agent, stored with a model that this environment can use; a user's own of its name is kept."""
    try:
        stored = (await client.get(f"/agents/{FIRST_AGENT}"))["definition"]
    except AgentNotFound:
        stored = None
    mine = stored is None or stored | {"model": ""} == first_agent("")
    keep = client.base_url != EMBEDDED and stored is not None
    if not mine or keep:
        return wanted._replace(agent=FIRST_AGENT)
    found = wanted.model or first_model(os.environ) or await _ollama_model(os.environ)
    await client.put(f"/agents/{FIRST_AGENT}", first_agent(found or DEMO_MODEL), create=True)
    return wanted._replace(agent=FIRST_AGENT, notice=None if found else NO_KEY)


def first_model(environment: Mapping[str, str]) -> str | None:
    """The model a newcomer's environment can use, None when there is no key."""
    chosen = environment.get("FLUX_MODEL")
    return chosen or next((model for variable, model in FIRST_MODELS.items() if environment.get(variable)), None)


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
        "planning": True,
        "approve_plan": True,
    }
