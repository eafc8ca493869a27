"""Asking for a summary over HTTP, and by the client."""

from __future__ import annotations

import httpx
import pytest

from flux.errors import SessionBusy, SessionNotFound, Unavailable
from flux.messages import ModelFailure
from flux.models.base import ModelRequest
from flux.models.scripted import Turn
from flux.testing import Reply, ScriptedModel
from tests.integration.server.models import Held
from tests.integration.server.serving import Served


def talker(summary: Turn) -> ScriptedModel:
    """A model that answers at some length, and summarises so."""

    def turn(request: ModelRequest) -> Turn:
        return summary if "summarise" in request.system else Reply("so " * 200)

    return ScriptedModel(turn)


async def talked(served: Served, summary: Turn) -> str:
    """A session with three turns."""
    agent = await served.agent(talker(summary), compaction={"keep_recent_tokens": 100})
    session = await served.client.start_session(agent)
    for text in ("one", "two", "three"):
        assert [event async for event in session.send(text)]
    return session.id


@pytest.mark.behaviour("sessions:compact")
async def test_a_session_is_compacted_over_http(stored: Served) -> None:
    id = await talked(stored, Reply("They talked."))
    answers = [
        await stored.http.post(f"/sessions/{id}/compact", headers={"Idempotency-Key": f"compact {id}"})
        for _ in range(2)
    ]
    first, again = (answer.json() for answer in answers)
    assert [answer.status_code for answer in answers] == [202, 202]
    assert first.keys() == {"id", "seq", "repeated", "request"}
    assert again == first | {"repeated": True}
    session = stored.client.session(id, str(first["seq"] - 1))
    kinds = [event.event.__struct_config__.tag async for event in session.until_rest()]
    assert kinds == ["compact_requested", "run_started", "compaction", "compact_done"]
    assert [event async for event in stored.client.session(id).send("four")]


@pytest.mark.behaviour("client:compact")
async def test_the_client_waits_for_the_summary(in_memory: Served) -> None:
    session = in_memory.client.session(await talked(in_memory, Reply("They talked.")))
    assert await session.compact() is True
    assert await session.compact() is False
    broken = in_memory.client.session(await talked(in_memory, ModelFailure("no credit left", "rejected")))
    with pytest.raises(Unavailable, match="no credit left"):
        await broken.compact()
    with pytest.raises(SessionNotFound):
        await in_memory.client.session("nobody").compact()


@pytest.mark.behaviour("compaction:asked:refused")
async def test_a_busy_session_answers_with_409(in_memory: Served) -> None:
    model = Held([Reply("one two three")])
    session = await in_memory.client.start_session(await in_memory.agent(model), "Hello")
    with pytest.raises(SessionBusy):
        await session.compact()
    answer: httpx.Response = await in_memory.http.post(f"/sessions/{session.id}/compact")
    assert (answer.status_code, answer.json()["error"]["type"]) == (409, "session_busy")
    model.open()
    assert [event async for event in session.until_rest()]
