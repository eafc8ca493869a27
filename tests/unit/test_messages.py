"""Messages and their parts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux.errors import FluxError, error_tree
from flux.messages import (
    AssistantMessage,
    CallPart,
    ModelFailure,
    ReasoningPart,
    TextPart,
    ToolCall,
    Usage,
    text_of,
    with_call_ids,
)

USAGE = st.builds(Usage, *[st.integers(0, 10**9)] * 4)


@pytest.mark.behaviour("events:messages:usage")
@given(USAGE, USAGE, USAGE)
def test_usage_adds_up_in_any_order(a: Usage, b: Usage, c: Usage) -> None:
    assert (a + b) + c == a + (b + c) == (c + b) + a
    assert (a + b).total == a.total + b.total
    assert a + Usage() == a


@pytest.mark.behaviour("events:messages:call-ids")
def test_calls_get_our_ids_everywhere_and_keep_their_order() -> None:
    message = AssistantMessage(
        parts=(TextPart("Let me "), CallPart("x"), TextPart("see."), CallPart("y")),
        calls=(ToolCall("x", "one", {"a": 1}, wire_id="x"), ToolCall("y", "two", wire_id="y")),
        usage=Usage(3, 4),
    )
    renamed = with_call_ids(message, ("c1", "c2"))
    assert renamed.parts == (TextPart("Let me "), CallPart("c1"), TextPart("see."), CallPart("c2"))
    assert renamed.calls == (ToolCall("c1", "one", {"a": 1}, wire_id="x"), ToolCall("c2", "two", wire_id="y"))
    assert (renamed.usage, renamed.stop) == (message.usage, message.stop)
    with pytest.raises(ValueError, match="zip"):
        with_call_ids(message, ("only one",))


@pytest.mark.behaviour("events:messages:text")
def test_the_text_of_a_message_is_its_visible_part() -> None:
    assert text_of((ReasoningPart("hm"), TextPart("a"), CallPart("x"), TextPart("b"))) == "ab"


@pytest.mark.behaviour("events:messages:failures")
def test_only_what_may_work_later_is_transient() -> None:
    kinds = ["transient", "stalled", "rejected", "overflow", "auth", "unknown_model"]
    assert [ModelFailure("x", kind).transient for kind in kinds] == [True, True, False, False, False, False]  # type: ignore[arg-type]


@pytest.mark.behaviour("events:errors:one-tree")
def test_every_error_has_a_type_of_its_own_and_a_sentence_for_the_caller() -> None:
    classes: set[type[FluxError]] = {FluxError}
    todo = [FluxError]
    while todo:
        children = todo.pop().__subclasses__()
        classes |= set(children)
        todo += children
    assert set(error_tree().values()) == classes
    for cls in classes:
        assert str(cls())
        assert "\n" not in str(cls())
        assert 400 <= cls.status < 600


@pytest.mark.behaviour("events:errors:one-tree")
def test_what_developers_are_told_is_not_in_the_text_for_callers() -> None:
    error = FluxError("Try again.", debug="password=hunter2", field="x")
    assert str(error) == "Try again."
    assert (error.debug, error.details) == ("password=hunter2", {"field": "x"})
