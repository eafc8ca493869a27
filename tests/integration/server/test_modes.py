"""Message modes over HTTP: what each does while the agent works, and when many come at once."""

import asyncio
from typing import Any, get_args

import pytest

from flux.events import Mode
from flux.models.base import ModelRequest
from flux.models.scripted import Call, Reply
from tests.integration.server.models import Held
from tests.integration.server.serving import Served

SHELL: dict[str, Any] = {"tools": ["system_tools"], "tool_approvals": {"shell": False}}


def told(request: ModelRequest) -> Reply:
    """One command, then what was said last."""
    text = str(request.messages[-1])
    if "'go'" in text:
        return Reply("", (Call("shell", {"command": "true"}),))
    return Reply(next((word for word in ("one", "two", "done") if word in text), "heard"))


async def send(served: Served, id: str, message: str, mode: str) -> int:
    body = {"message": message, "mode": mode}
    return (await served.http.post(f"/sessions/{id}/messages", json=body)).status_code


async def log_of(served: Served, id: str) -> list[dict[str, Any]]:
    """The log of a session at rest."""
    async with asyncio.timeout(20):
        async for _ in served.client.session(id, "0").events():
            if (await served.client.session(id).info())["state"] == "idle":
                break
    return [row async for row in served.client.pages(f"/sessions/{id}/events")]


def consumed(log: list[dict[str, Any]]) -> dict[str, str]:
    """The type of the entry that took up each message, by its text."""
    texts = {row["id"]: row["parts"][0]["text"] for row in log if row["type"] == "user_message"}
    return {texts[id]: row["type"] for row in log for id in row.get("inputs", ()) if id in texts}


@pytest.mark.behaviour("server:modes:each")
async def test_each_mode_does_its_own_to_a_run_at_work(stored: Served) -> None:
    model = Held(told)
    session = await stored.client.start_session(await stored.agent(model, **SHELL), "go")
    await model.asked.wait()
    assert await send(stored, session.id, "rejected", "reject") == 409
    assert await send(stored, session.id, "queued", "queue") == 202
    assert await send(stored, session.id, "steering", "steer") == 202
    model.open()
    log = await log_of(stored, session.id)
    assert consumed(log) == {"go": "run_started", "steering": "assistant_message", "queued": "run_started"}
    assert await send(stored, session.id, "at rest", "reject") == 202
    assert consumed(await log_of(stored, session.id))["at rest"] == "run_started"


@pytest.mark.behaviour("server:modes:each")
async def test_an_interrupt_stops_the_run_and_is_the_next(stored: Served) -> None:
    model = Held(told)
    session = await stored.client.start_session(await stored.agent(model, **SHELL), "go")
    await model.asked.wait()
    assert await send(stored, session.id, "instead", "interrupt") == 202
    model.open()
    log = await log_of(stored, session.id)
    ends = [row["type"] for row in log if row["type"] in ("cancelled", "chat_response", "error")]
    assert ends == ["cancelled", "chat_response"]
    assert consumed(log) == {"go": "run_started", "instead": "run_started"}


@pytest.mark.behaviour("server:modes:races")
@pytest.mark.parametrize("mode", get_args(Mode))
async def test_of_many_at_once_each_is_answered_once_and_one_alone_is_not_rejected(stored: Served, mode: str) -> None:
    model = Held(told)
    session = await stored.client.start_session(await stored.agent(model))
    statuses = await asyncio.gather(*(send(stored, session.id, f"n {n}", mode) for n in range(12)))
    model.open()
    accepted = statuses.count(202)
    assert accepted == (1 if mode == "reject" else 12)
    assert set(statuses) <= {202, 409}
    log = await log_of(stored, session.id)
    said = [row["id"] for row in log if row["type"] == "user_message"]
    taken = [id for row in log for id in row.get("inputs", ())]
    assert len(said) == accepted
    assert sorted(taken) == sorted(said)
    started = [row["run"] for row in log if row["type"] == "run_started"]
    ends = [row["type"] for row in log if row["type"] in ("cancelled", "chat_response", "error")]
    assert len(ends) >= len(started)
    assert ends[-1] == "chat_response"
