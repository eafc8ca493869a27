"""What is told about a session to somebody who comes back."""

from typing import Any

import httpx
import msgspec
import pytest

from flux.client import FluxClient
from flux.events import (
    AssistantSaid,
    Cancelled,
    ChatResponse,
    Entry,
    RunStarted,
    SessionEndedEntry,
    UserSaid,
    encode,
)
from flux.messages import TextPart
from flux.surfaces.terminal import history
from flux.surfaces.terminal.history import Past, past


def user(id: str) -> UserSaid:
    return UserSaid(id=id, mode="queue", parts=(TextPart(f"said {id}"),))


def run(*inputs: str) -> RunStarted:
    return RunStarted(run="r", inputs=inputs)


ANSWER = AssistantSaid(message_id="m", parts=(TextPart("answer"),))
END = ChatResponse(content="answer", turn=1)


async def told(*entries: Entry, turns: int = 0) -> Past:
    rows = [msgspec.json.decode(encode(entry)) | {"seq": seq} for seq, entry in enumerate(entries, 1)]

    def answer(request: httpx.Request) -> httpx.Response:
        after, limit = int(request.url.params["after"]), int(request.url.params["limit"])
        return httpx.Response(200, json={"items": rows[after : after + limit], "next_cursor": None})

    async with FluxClient("http://localhost", transport=httpx.MockTransport(answer)) as client:
        return await past(client, "s", len(rows), turns)


@pytest.mark.behaviour("terminal:resume:asks-again")
@pytest.mark.parametrize("page", [1, 2, 200])
async def test_the_last_exchange_and_what_is_open(monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    monkeypatch.setattr(history, "PAGE", page)
    answered = RunStarted(run="r", inputs=("a",)), ANSWER, END
    done: list[Any] = [user("a"), *answered]
    entries = (user("a"), *answered)
    assert await told() == Past()
    assert await told(*done) == Past(4, "said a", entries)
    assert await told(*done, user("b")) == Past(4, "said a", entries, open=True)
    assert await told(*done, user("b"), run("b"), ANSWER) == Past(4, "said a", entries, open=True)
    assert await told(user("a"), run("a")) == Past(open=True)
    ended = SessionEndedEntry(reason="stopped", turns=1)
    assert await told(*done, user("b"), ended) == Past(4, "said a", (*entries, ended))
    queued = await told(user("a"), run("a"), user("b"), Cancelled())
    assert queued == Past(4, "said a", (user("a"), run("a"), Cancelled()), (user("b"),), open=True)


@pytest.mark.behaviour("terminal:resume:last-exchange")
async def test_earlier_messages_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    exchanges = [entry for id in "abcd" for entry in (user(id), run(id), ANSWER, END)]
    last = (user("d"), run("d"), ANSWER, END)
    assert await told(*exchanges, turns=4) == Past(16, "said d", last, earlier=3)
    monkeypatch.setattr(history, "PAGE", 5)
    assert await told(*exchanges, turns=4) == Past(16, "said d", last, earlier=3)
