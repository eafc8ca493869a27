"""Sessions of agents that talk by a workflow of their own: to a client they are like any other."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from flux.events import type_of
from flux.models.scripted import Reply
from tests.integration.server.conversations import greeted, talker
from tests.integration.server.models import Held, says
from tests.integration.server.serving import Served
from tests.integration.server.streams import body, frames, history
from tests.integration.server.test_sessions import call, refused

CHAT = ("user_message", "run_started", "assistant_message", "chat_response", "session_end", "error", "cancelled")


async def told(served: Served, id: str, text: str, **more: Any) -> list[Any]:
    """What happens in a session from a message on, until its run rests."""
    async with aclosing(served.client.session(id).send(text, **more)) as events:
        return [event.event async for event in events]


async def answered(served: Served, id: str, asked: str, decision: str, **more: Any) -> Any:
    """What the run comes to when a question is answered."""
    async with aclosing(served.client.session(id).resolve(asked, decision, **more)) as events:
        return [event.event async for event in events][-1]


def kinds(events: list[Any]) -> list[str]:
    """The entries that people see."""
    return [type_of(one) for one in events if type_of(one) in CHAT]


async def until(served: Served, id: str, state: str) -> dict[str, Any]:
    """The row of a session as soon as it is in this state."""
    async with asyncio.timeout(10), aclosing(frames(served.client, id)) as stream:
        async for _ in stream:
            row = await served.client.session(id).info()
            if row["state"] == state:
                return row
    raise AssertionError("the stream ended")


@pytest.mark.behaviour("conversation:sessions:turns")
async def test_a_session_is_greeted_and_answered_turn_by_turn(stored: Served) -> None:
    id = await greeted(stored)
    row = await until(stored, id, "idle")
    assert (row["turns"], row["run"], row["waiting_for"], row["last_error"]) == (0, None, None, None)
    assert kinds(await told(stored, id, "hello")) == [
        "user_message", "run_started", "assistant_message", "chat_response",
    ]  # fmt: skip
    end = (await told(stored, id, "again"))[-1]
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


@pytest.mark.behaviour("conversation:sessions:first-message")
async def test_a_message_that_starts_a_session_is_answered_behind_the_greeting(in_memory: Served) -> None:
    session = await in_memory.client.start_session(await talker(in_memory), "hello")
    events = await history(in_memory.client, session.id, ends=2)
    ends = [body(event) for event in events if event.type == "chat_response"]
    assert [(end["content"], end["turn"]) for end in ends] == [("", 0), ("HELLO", 1)]
    assert events[0].type == "session_started"


@pytest.mark.behaviour("conversation:sessions:queue")
async def test_messages_while_it_works_are_answered_in_their_order(in_memory: Served) -> None:
    model = Held([Reply("slow answer")])
    id = await greeted(in_memory, model=model)
    first = asyncio.create_task(told(in_memory, id, "ask"))
    await asyncio.wait_for(model.asked.wait(), 10)
    assert await refused(in_memory, "POST", f"/sessions/{id}/messages", 409, {"message": "x", "mode": "reject"}) == (
        "session_busy"
    )
    await in_memory.client.session(id).post("second")
    third = asyncio.create_task(told(in_memory, id, "third"))
    model.open()
    assert kinds(await first)[-1] == "chat_response"
    assert (await third)[-1].content == "THIRD"
    ends = [body(one) for one in await history(in_memory.client, id, ends=4) if one.type == "chat_response"]
    assert [end["content"] for end in ends] == ["Welcome!", "slow answer", "SECOND", "THIRD"]


@pytest.mark.behaviour("conversation:sessions:tokens")
async def test_the_tokens_of_an_answer_are_those_of_its_message(in_memory: Served) -> None:
    id = await greeted(in_memory, model=says("one two three"))
    events = await told(in_memory, id, "ask")
    tokens = [event for event in events if type_of(event) == "token"]
    answer = next(event for event in events if type_of(event) == "assistant_message")
    assert "".join(token.text for token in tokens) == "one two three"
    assert {token.message_id for token in tokens} == {answer.message_id}
    assert (await until(in_memory, id, "idle"))["usage"]["total"] > 0


@pytest.mark.behaviour("conversation:sessions:cancel")
async def test_a_stopped_run_leaves_the_session_where_it_was(stored: Served) -> None:
    id = await greeted(stored)
    running = asyncio.create_task(told(stored, id, "hold"))
    await until(stored, id, "running")
    assert (await stored.client.session(id).cancel())["cancelled"] is True
    assert kinds(await running)[-1] == "cancelled"
    assert (await until(stored, id, "idle"))["turns"] == 0
    assert (await told(stored, id, "hello"))[-1].content == "HELLO"
    assert (await stored.client.session(id).cancel())["cancelled"] is False


@pytest.mark.behaviour("conversation:sessions:interrupt")
async def test_a_message_that_interrupts_is_answered_instead(in_memory: Served) -> None:
    id = await greeted(in_memory)
    running = asyncio.create_task(told(in_memory, id, "hold"))
    await until(in_memory, id, "running")
    instead = (await told(in_memory, id, "hello", mode="interrupt"))[-1]
    assert (instead.content, instead.turn) == ("HELLO", 1)
    assert kinds(await running)[-1] == "cancelled"


@pytest.mark.behaviour("conversation:sessions:elicitation")
async def test_an_elicitation_is_asked_and_answered_as_such(stored: Served) -> None:
    id = await greeted(stored)
    asked = (await told(stored, id, "login"))[-1]
    assert type_of(asked) == "elicitation"
    assert (asked.elicitation_id, asked.url, asked.server_name) == ("el-1", "https://example.org/login", "shop")
    assert (await until(stored, id, "waiting"))["waiting_for"] == "elicitation"
    shown = await call(stored, "GET", f"/executions/{id}", 200)
    assert (shown["state"], shown["output"]["type"]) == ("PAUSED", "elicitation")
    assert await refused(stored, "POST", f"/sessions/{id}/interrupts/{asked.id}", 400, {"decision": "approve"})
    await stored.client.session(id).post("queued")
    end = await answered(stored, id, asked.id, "accept", content={"code": 7})
    assert end.content == str(
        {"elicitation_response": {"elicitation_id": "el-1", "action": "accept", "content": {"code": 7}}}
    )
    await history(stored.client, id, ends=3)
    assert (await until(stored, id, "idle"))["turns"] == 2


@pytest.mark.behaviour("conversation:sessions:cancel-asked")
async def test_a_question_of_a_stopped_run_is_asked_anew(in_memory: Served) -> None:
    id = await greeted(in_memory)
    for message, kind in (("login", "elicitation"), ("form", "pause"), ("pay 5", "approval_required")):
        first = (await told(in_memory, id, message))[-1]
        assert type_of(first) == kind
        await until(in_memory, id, "waiting")
        await in_memory.client.session(id).cancel()
        await until(in_memory, id, "idle")
        second = (await told(in_memory, id, message))[-1]
        open_ones = await in_memory.client.session(id).interrupts()
        assert [one["id"] for one in open_ones] == [second.id] != [first.id]
        await in_memory.client.session(id).cancel()
        await until(in_memory, id, "idle")


@pytest.mark.behaviour("conversation:sessions:unknown-pause")
async def test_a_pause_of_another_type_is_passed_on_as_it_is(in_memory: Served) -> None:
    id = await greeted(in_memory)
    asked = (await told(in_memory, id, "form"))[-1]
    assert (type_of(asked), asked.name, asked.output) == ("pause", "form", {"type": "form", "fields": ["name"]})
    end = await answered(in_memory, id, asked.id, "answer", content={"name": "Ann"})
    assert end.content == "{'name': 'Ann'}"


@pytest.mark.behaviour("conversation:sessions:approval")
async def test_a_task_that_needs_approval_is_asked_about(in_memory: Served) -> None:
    id = await greeted(in_memory)
    asked = (await told(in_memory, id, "pay 5"))[-1]
    assert (type_of(asked), asked.tool, asked.args) == ("approval_required", "pay", {"amount": "5"})
    assert (await answered(in_memory, id, asked.id, "approve")).content == "paid 5"


@pytest.mark.behaviour("conversation:sessions:end")
@pytest.mark.parametrize(
    ("message", "reason", "state", "output"),
    [
        ("bye", "user_exit", "COMPLETED", {"type": "session_end", "reason": "user_exit", "turns": 1}),
        ("done", "completed", "COMPLETED", None),
        ("fail", "error", "FAILED", None),
    ],
)
async def test_it_ends_by_a_pause_a_return_or_an_error(
    in_memory: Served, message: str, reason: str, state: str, output: Any
) -> None:
    id = await greeted(in_memory)
    events = await told(in_memory, id, message)
    ended = await until(in_memory, id, "ended")
    rows = (await call(in_memory, "GET", f"/sessions/{id}/events", 200))["items"]
    assert (rows[-1]["type"], rows[-1]["reason"]) == ("session_end", reason)
    shown = await call(in_memory, "GET", f"/executions/{id}", 200)
    assert shown["state"] == state
    assert output is None or shown["output"] == output
    assert (type_of(events[-1]), ended["last_error"]) == (
        ("error", "ValueError: no more of this") if message == "fail" else ("session_end", None)
    )
    assert await refused(in_memory, "POST", f"/sessions/{id}/messages", 409, {"message": "x"}) == "session_ended"


@pytest.mark.behaviour("conversation:sessions:stop")
async def test_stopping_ends_the_session(in_memory: Served) -> None:
    for message in (None, "hold", "login"):
        id = await greeted(in_memory)
        if message:
            await in_memory.client.session(id).post(message)
            await until(in_memory, id, "waiting" if message == "login" else "running")
        await in_memory.client.session(id).stop()
        assert (await until(in_memory, id, "ended"))["outcome"] == "cancelled"
        assert (await call(in_memory, "GET", f"/executions/{id}", 200))["state"] == "CANCELLED"
        assert (await in_memory.client.session(id).interrupts()) == []


@pytest.mark.behaviour("conversation:sessions:model")
async def test_a_model_for_one_run_is_refused(in_memory: Served) -> None:
    id = await greeted(in_memory)
    asked = {"message": "hi", "model": "scripted/echo"}
    assert await refused(in_memory, "POST", f"/sessions/{id}/messages", 400, asked) == "invalid_input"
