"""Sessions of a harness whose history is summarised on request."""

from __future__ import annotations

import pytest

from flux import init_agent
from flux.errors import AgentFailed, SessionBusyError
from flux.messages import ModelFailure, UserMessage, text_of
from flux.models.base import ModelRequest
from flux.models.scripted import Turn
from flux.testing import Reply
from tests.integration.harness.conftest import MakeAgent


@pytest.mark.behaviour("harness:session:compact")
async def test_a_program_has_its_session_summarised(desk: MakeAgent) -> None:
    told: list[ModelRequest] = []

    def turn(request: ModelRequest) -> Turn:
        told.append(request)
        return Reply("They talked." if "summarise" in request.system else "so " * 200)

    harness = await init_agent(desk(turn, compaction={"keep_recent_tokens": 100}), id="1")
    session = await harness.session()
    assert await session.compact() is False
    for text in ("one", "two", "three"):
        await session.prompt(text)
    waiting = session.prompt("four")
    with pytest.raises(SessionBusyError):
        await session.compact()
    await waiting
    assert await session.compact() is True
    await session.prompt("five")
    first = told[-1].messages[0]
    assert isinstance(first, UserMessage)
    assert "They talked." in text_of(first.parts)
    assert len(told[-1].messages) < 5


@pytest.mark.behaviour("harness:session:compact")
async def test_a_summary_that_fails_is_told_to_the_program(desk: MakeAgent) -> None:
    def turn(request: ModelRequest) -> Turn:
        return ModelFailure("no credit left") if "summarise" in request.system else Reply("so " * 200)

    session = await (await init_agent(desk(turn, compaction={"keep_recent_tokens": 100}), id="1")).session()
    for text in ("one", "two"):
        await session.prompt(text)
    with pytest.raises(AgentFailed, match="no credit left"):
        await session.compact()
    assert (await session.prompt("three")).text.startswith("so")
