"""The client of the MCP conformance suite: an agent with a scripted model that calls every tool of the server.

The suite starts it as `python -m tests.acceptance.mcp_conformance URL` for each scenario. Questions are accepted,
and addresses visited, as a person with a browser would.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from flux.agents.define.definition import define
from flux.agents.process import Process, open_process
from flux.engine.intake.answers import Decision
from flux.engine.intake.inputs import NewMessage
from flux.errors import InterruptDecided, InvalidInput
from flux.events import AssistantSaid, Entry, ToolDone
from flux.messages import AssistantMessage
from flux.models.base import ModelRequest
from flux.settings import Settings
from flux.store.database import LOCAL
from flux.store.interrupts import payload_of
from flux.testing import Call, Reply, ScriptedModel

#: The suite's clients are known by this address to authorisation servers that read it.
KNOWN_AS = "https://conformance-test.local/client-metadata.json"
LOG_IN = "mcp__suite__log_in"
SECONDS = 25.0


def told() -> dict[str, Any]:
    """What the suite tells its client about the scenario."""
    found: dict[str, Any] = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
    return found


def script(request: ModelRequest) -> Reply:
    """Log in while nothing else is there to do, then call every tool once, or what the suite wants to be called."""
    called = [call.name for said in request.messages if isinstance(said, AssistantMessage) for call in said.calls]
    tools = [tool for tool in request.tools if tool.name != LOG_IN]
    wanted = told().get("toolCalls", [])
    if tools and wanted:
        done = len([name for name in called if name != LOG_IN])
        return _called(wanted[done]) if done < len(wanted) else Reply("done")
    due = next((tool for tool in tools if tool.name not in called), None)
    if due is not None and due.name == "mcp__suite__json_schema_echo":
        return Reply(calls=(Call(due.name, {"schema": next(tool.parameters for tool in tools if tool != due)}),))
    if due is not None:
        return Reply(calls=(Call(due.name, arguments(due.parameters)),))
    if not tools and LOG_IN in [tool.name for tool in request.tools] and LOG_IN not in called:
        return Reply(calls=(Call(LOG_IN),))
    return Reply("done")


def _called(call: Mapping[str, Any]) -> Reply:
    return Reply(calls=(Call(f"mcp__suite__{call['name']}", call["arguments"]),))


def arguments(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that a schema takes."""
    wanted = schema.get("properties", {})
    return {name: value(part) for name, part in wanted.items()}


def value(schema: Mapping[str, Any]) -> Any:
    """A value that a simple schema takes."""
    if "enum" in schema:
        return schema["enum"][0]
    kinds = {"string": "text", "number": 5, "integer": 5, "boolean": True, "array": [], "object": {}, "null": None}
    kind = schema.get("type", "string")
    return kinds.get(kind if isinstance(kind, str) else kind[0], "text")


def server(url: str) -> dict[str, Any]:
    """The suite's server, as an agent knows it."""
    scenario = os.environ.get("MCP_CONFORMANCE_SCENARIO", "")
    known = told()
    found: dict[str, Any] = {"url": url, "name": "suite", "timeout": 20}
    if scenario.startswith("auth/"):
        found["auth"] = "oauth"
    if known.get("client_id"):
        found |= {"client_id": known["client_id"]} | ({"secret": "client"} if known.get("client_secret") else {})
    return found


async def main(url: str) -> None:
    """Run the agent until it has an answer."""
    with tempfile.TemporaryDirectory() as home:
        async with open_process(
            Settings(home=Path(home), synchronous="normal", server_port=1),
            environment={},
            workspace=Path(home),
            factories={"test": lambda _: ScriptedModel(script)},
        ) as process:
            process.mcp.document = KNOWN_AS
            if "client_secret" in told():
                await process.secrets.set(LOCAL, "client", told()["client_secret"])
            agent = define({"name": "suite", "model": "test/any", "mcp_servers": [server(url)], "max_tool_calls": 50})
            await process.agents.put(LOCAL, agent, create=True, update=True)
            started = await process.sessions.start(LOCAL, "suite", NewMessage("go"))
            async with asyncio.timeout(SECONDS):
                await attend(process, started.id)
            for entry in await log(process, started.id):
                if isinstance(entry, ToolDone | AssistantSaid):
                    print(str(entry)[:400])


async def attend(process: Process, session: str) -> None:
    """Answer what is asked until the session rests."""
    done: set[str] = set()
    async for _ in process.sessions.follow(LOCAL, session):
        for question in await process.sessions.interrupts(LOCAL, session):
            if question.id not in done:
                done.add(question.id)
                await answer(process, session, question.id, payload_of(question))
        if (await process.sessions.get(LOCAL, session)).state == "idle":
            return


async def answer(process: Process, session: str, id: str, asked: Mapping[str, Any]) -> None:
    """Do what a willing person does."""
    if asked.get("mode") == "url":
        if not await visit(process, asked["url"]):
            with suppress(InterruptDecided):
                await process.sessions.answer(LOCAL, session, id, Decision("decline"))
        return
    content = arguments(asked.get("schema") or {}) if "schema" in asked else None
    fields = (asked.get("schema") or {}).get("properties", {})
    left_out = {name for name, part in fields.items() if "default" in part}
    given = {name: value for name, value in (content or {}).items() if name not in left_out}
    decision = Decision("accept", content=given) if "mode" in asked else Decision("answer", content="yes")
    await process.sessions.answer(LOCAL, session, id, decision)


async def visit(process: Process, url: str) -> bool:
    """Follow a login to where it sends the browser back; whether that worked."""
    async with httpx.AsyncClient() as browser:
        sent = await browser.get(url)
    query = {name: values[0] for name, values in parse_qs(urlsplit(sent.headers.get("location", "")).query).items()}
    try:
        await process.logins.came_back(
            query.get("state", ""), query.get("code"), query.get("iss"), query.get("error", f"HTTP {sent.status_code}")
        )
    except InvalidInput as problem:
        print(f"the login did not work: {problem}")
        return False
    return True


async def log(process: Process, session: str) -> list[Entry]:
    """The log of the session."""
    rows = await process.sessions.entries(LOCAL, session, 0, 1000)
    return [stored.entry for row in rows if isinstance((stored := row.stored()).entry, Entry)]


if __name__ == "__main__":
    asyncio.run(main(sys.argv[-1]))
