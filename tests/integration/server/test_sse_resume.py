"""Reconnecting at any place of a stream loses nothing and doubles nothing."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Any

import pytest

from flux.client.sse import ServerEvent
from flux.models.scripted import Call, Reply
from tests.integration.server.models import LONG, WORDS, Held
from tests.integration.server.serving import Served
from tests.integration.server.streams import body, frames, is_delta, nth, read

TOOLS = (Call("list_directory", {"path": "."}), Call("shell", {"command": "echo one; echo two"}))
SCRIPT = [
    Reply("A first answer."),
    Reply("I will look. ", TOOLS, reasoning="Looking is good."),
    Reply(LONG, reasoning="Now I know."),
    Reply("And that is all."),
]


def facts(events: Sequence[ServerEvent]) -> list[tuple[str, str]]:
    return [(event.type, event.data) for event in events]


def subjects(event: ServerEvent) -> set[Any]:
    """The messages and calls that a frame is about."""
    told = body(event)
    return {told.get("message_id"), told.get("call")} - {None}


def ends_deltas(event: ServerEvent) -> bool:
    return event.type in ("assistant_message", "model_failed", "tool_done")


def behind(cut: int, before: Sequence[ServerEvent]) -> list[ServerEvent]:
    """What a reader that has seen `before[:cut]` must get, when all of `before` has happened.

    Deltas whose entry is there are not sent again: the entry says it all.
    """
    missing = before[cut:]
    pieces = [
        event
        for place, event in enumerate(before[cut:], cut)
        if is_delta(event) and not any(ends_deltas(e) and subjects(e) & subjects(event) for e in before[place:])
    ]
    return [event for event in missing if not is_delta(event)] + pieces


async def middle_of_an_answer(served: Served) -> tuple[Held, str, list[ServerEvent]]:
    """A session in its second epoch: tools have run, a model call broke once, and 35 of 50 words are out."""
    model = Held(SCRIPT, breaks={2: 12})
    agent = await served.agent(model, tools=["system_tools"], tool_approvals={"shell": False})
    session = await served.client.start_session(agent)
    async with aclosing(frames(served.client, session.id)) as stream:
        await session.post("Hello")
        model.let(4)
        seen = await read(stream, nth("chat_response", 1))
        await session.post("Look around, please")
        model.let(7 + 12 + 3 + 25)
        seen += await read(stream, lambda event: event.type == "token" and WORDS[24] in event.data)
        await session.post("And then?")
        seen += await read(stream, nth("user_message", 1))
        model.let(10)
        seen += await read(stream, lambda event: event.type == "token" and WORDS[34] in event.data)
    return model, session.id, seen


@pytest.mark.behaviour("sse:resume:every-cut")
async def test_a_reader_that_reconnects_anywhere_gets_the_rest_exactly_once(served: Served) -> None:
    model, id, before = await middle_of_an_answer(served)
    assert sum(event.type == "token" and body(event)["attempt"] == 2 for event in before) >= 35
    async with AsyncExitStack() as stack:
        readers = []
        for cut in range(len(before) + 1):
            cursor = before[cut - 1].id if cut else "0"
            stream = await stack.enter_async_context(aclosing(frames(served.client, id, cursor)))
            wanted = behind(cut, before)
            got = [await anext(stream) for _ in wanted]
            assert facts(got) == facts(wanted), f"cut behind frame {cut} ({cursor})"
            readers.append(stream)
        model.open()
        rests = await asyncio.gather(*(read(stream, nth("chat_response", 2)) for stream in readers))
    assert len({tuple(facts(rest)) for rest in rests}) == 1
    words = [body(event)["text"] for event in before + rests[0] if event.type == "token"]
    assert "".join(words).endswith(LONG + "And that is all.")


@pytest.mark.behaviour("sse:resume:every-cut")
async def test_the_ids_of_a_reader_that_came_later_are_as_good(served: Served) -> None:
    model, id, before = await middle_of_an_answer(served)
    size = len(behind(0, before))
    async with aclosing(frames(served.client, id)) as stream:
        late = [await anext(stream) for _ in range(size)]
    for cut in range(size):
        async with aclosing(frames(served.client, id, late[cut].id)) as stream:
            rest = [await anext(stream) for _ in late[cut + 1 :]]
        assert facts(rest) == facts(late[cut + 1 :]), f"cut behind frame {cut} ({late[cut].id})"
    model.open()
    async with aclosing(frames(served.client, id, late[-1].id)) as stream:
        rest = await read(stream, nth("chat_response", 2))
    words = [body(event)["text"] for event in late + rest if event.type == "token"]
    assert "".join(words) == LONG + "And that is all."


@pytest.mark.behaviour("sse:resume:attempts")
async def test_a_broken_model_call_is_told_apart_by_its_attempt(served: Served) -> None:
    model, _, before = await middle_of_an_answer(served)
    (failed,) = [event for event in before if event.type == "model_failed"]
    pieces = [body(e) for e in before if e.type == "token" and subjects(e) == {body(failed)["message_id"]}]
    first = "".join(piece["text"] for piece in pieces if piece["attempt"] == 1)
    second = "".join(piece["text"] for piece in pieces if piece["attempt"] == 2)
    assert first
    assert LONG.startswith(first)
    assert second == "".join(WORDS[:35])
    model.open()


@pytest.mark.behaviour("sse:ids:cursors")
async def test_ids_are_the_last_entry_the_epoch_and_the_delta(served: Served) -> None:
    model, _, before = await middle_of_an_answer(served)
    last = (0, 0, 0)
    for event in before:
        seq, epoch, n = map(int, event.id.split("."))
        if is_delta(event):
            assert (seq, epoch, n) == (last[0], last[1], n)
            assert n == body(event)["n"] > last[2] or epoch > last[1]
        else:
            assert seq == last[0] + 1 == body(event)["seq"]
            assert epoch == body(event)["epoch"]
        last = (seq, epoch, n)
    model.open()
