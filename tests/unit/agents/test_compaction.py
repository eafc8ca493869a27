"""Compaction: what is cut, and what the summarising model is told."""

import pytest

from flux.agents.compaction import SummaryFailed, summarise
from flux.agents.cuts import Compact, cut
from flux.agents.transcript import SummaryItem
from flux.events import ChatResponse, Compacted
from flux.messages import ModelFailure, UserMessage, text_of
from flux.testing import Reply, ScriptedModel
from tests.unit.agents.logs import answer, done, run, session, transcript, user

TALK = (
    session(),
    user("u1", text="Read the notes."),
    run("u1"),
    answer("I read.", "c1", id="m1"),
    done("c1", content="Buy milk."),
    answer("You need milk.", id="m2"),
    ChatResponse(content="You need milk.", turn=1),
    user("u2", text="Thanks."),
    run("u2", id="r2"),
)


@pytest.mark.behaviour("loop:compaction:tells-all")
async def test_the_summary_s_model_reads_messages_calls_and_results_as_text() -> None:
    log = transcript(*TALK)
    step = cut(log, 1)
    assert step is not None
    model = ScriptedModel([Reply("They need milk.")])
    made = await summarise(log, step, model)
    assert made == Compacted(upto=step.upto, summary="They need milk.", usage=made.usage)
    request = model.requests[0]
    assert all(isinstance(message, UserMessage) for message in request.messages)
    told = text_of(request.messages[0].parts)  # type: ignore[union-attr]
    for piece in ("Read the notes.", "I read.", "look(", "Buy milk.", "You need milk."):
        assert piece in told
    assert "Thanks." not in told


@pytest.mark.behaviour("loop:compaction:again")
def test_a_second_compaction_includes_the_first_summary() -> None:
    log = transcript(*TALK, Compacted(upto=3, summary="They greeted."))
    assert isinstance(log.items[0], SummaryItem)
    step = cut(log, 1)
    assert step is not None
    older = [item for item in log.items if item.seq <= step.upto]
    assert isinstance(older[0], SummaryItem)
    assert len(older) > 1


@pytest.mark.behaviour("loop:compaction:fails-clearly")
@pytest.mark.parametrize("turn", [ModelFailure("down", "transient"), Reply("")])
async def test_without_a_summary_nothing_is_cut(turn: Reply | ModelFailure) -> None:
    with pytest.raises(SummaryFailed, match="summarising it failed"):
        await summarise(transcript(*TALK), Compact(6), ScriptedModel([turn]))
