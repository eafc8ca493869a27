"""Sessions of agents that talk by a workflow of their own: to a client they are like any other."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from flux.client.reader import Event
from flux.events import type_of
from flux.models.scripted import ScriptedModel
from tests.integration.server.conversations import greeted, talker
from tests.integration.server.models import Held, says
from tests.integration.server.serving import Served
from tests.integration.server.streams import body, history
from tests.integration.server.test_sessions import call, refused

CHAT = ("user_message", "run_started", "assistant_message", "chat_response", "session_end", "error", "cancelled")


async def told(served: Served, id: str, text: str, **more: Any) -> list[Event]:
    """What happens in a session from a message on, until its run rests."""
    async with aclosing(served.client.session(id).send(text, **more)) as events:
        return [event async for event in events]


def kinds(events: list[Event]) -> list[str]:
    """The entries that people see."""
    return [type_of(one.event) for one in events if type_of(one.event) in CHAT]


async def until(served: Served, id: str, state: str) -> dict[str, Any]:
    """The row of a session as soon as it is in this state."""
    async with asyncio.timeout(10):
        while (row := await served.client.session(id).info())["state"] != state:
            await asyncio.sleep(0.01)
    return row


@pytest.mark.behaviour("conversation:sessions:turns")
async def test_a_session_is_greeted_and_answered_turn_by_turn(stored: Served) -> None:
    id = await greeted(stored)
    row = await until(stored, id, "idle")
    assert (row["turns"], row["run"], row["waiting_for"], row["last_error"]) == (0, None, None, None)
    assert kinds(await told(stored, id, "hello")) == [
        "user_message", "run_started", "assistant_message", "chat_response",
    ]  # fmt: skip
    end = (await told(stored, id, "again"))[-1].event
    assert (end.content, end.turn) == ("AGAIN", 2)
    row = await until(stored, id, "idle")
    assert (row["turns"], row["title"], row["agent_version"]) == (2, "hello", 1)
    said = [
        (one["role"], one["parts"][0]["text"])
        for one in (await call(stored, "GET", f"/sessions/{id}/messages", 200))["items"]
    ]
    assert said == [
        ("assistant", "Welcome!"), ("user", "hello"), ("assistant", "HELLO"), ("user", "again"), ("assistant", "AGAIN"),
    ]  # fmt: skip
    listed = (await call(stored, "GET", f"/sessions?agent={row['agent_name']}&state=idle&q=again", 200))["items"]
    assert [one["id"] for one in listed] == [id]
