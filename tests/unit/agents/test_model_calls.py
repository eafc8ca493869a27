"""One model call: what is kept of it when it is stopped, and which call it was."""

import pytest

from flux.agents.turn.model_calls import Attempt, Partial, message_id
from flux.messages import ReasoningDelta, ReasoningPart, TextDelta, TextPart

ATTEMPT = Attempt("m1", 2, ("u1",), last=False, final=False)


@pytest.mark.behaviour("loop:cancel:keeps-text")
def test_a_stopped_answer_keeps_what_was_shown() -> None:
    partial = Partial()
    for delta in (ReasoningDelta("Hm"), TextDelta("Hel"), ReasoningDelta("m."), TextDelta("lo")):
        partial.add(delta)
    entry = partial.entry(ATTEMPT, "test/one")
    assert entry is not None
    assert entry.parts == (ReasoningPart("Hmm."), TextPart("Hello"))
    assert (entry.message_id, entry.inputs, entry.stop, entry.calls) == ("m1", ("u1",), "cancelled", ())


@pytest.mark.behaviour("loop:cancel:keeps-text")
def test_an_answer_stopped_before_its_text_leaves_nothing() -> None:
    partial = Partial()
    assert partial.entry(ATTEMPT, "test/one") is None
    partial.add(ReasoningDelta("Hm"))
    assert partial.entry(ATTEMPT, "test/one") is None


@pytest.mark.behaviour("loop:model:same-id-again")
def test_a_call_that_is_made_again_has_the_same_id_and_the_next_another() -> None:
    assert message_id("r1", 0) == message_id("r1", 0)
    assert len({message_id(run, n) for run in ("r1", "r2") for n in range(3)}) == 6
