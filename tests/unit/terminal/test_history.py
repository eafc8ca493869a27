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


async def told(*entries: Entry) -> Past:
    rows = [msgspec.json.decode(encode(entry)) | {"seq": seq} for seq, entry in enumerate(entries, 1)]

    def answer(request: httpx.Request) -> httpx.Response:
        after, limit = int(request.url.params["after"]), int(request.url.params["limit"])
        return httpx.Response(200, json={"items": rows[after : after + limit], "next_cursor": None})

    async with FluxClient("http://localhost", transport=httpx.MockTransport(answer)) as client:
        return await past(client, "s", len(rows))


@pytest.mark.behaviour("terminal:resume:asks-again")
@pytest.mark.parametrize("page", [1, 2, 200])
async def test_the_last_exchange_and_what_is_open(monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    monkeypatch.setattr(history, "PAGE", page)
    done: list[Any] = [user("a"), run("a"), ANSWER, END]
    assert await told() == Past()
    assert await told(*done) == Past(4, "said a", "answer")
    assert await told(*done, user("b")) == Past(4, "said a", "answer", open=True)
    assert await told(*done, user("b"), run("b"), ANSWER) == Past(4, "said a", "answer", open=True)
    assert await told(user("a"), run("a")) == Past(open=True)
    assert await told(*done, user("b"), SessionEndedEntry(reason="stopped", turns=1)) == Past(4, "said a", "answer")
    queued = await told(user("a"), run("a"), user("b"), Cancelled())
    assert queued == Past(4, "said a", "", (user("b"),), open=True)
