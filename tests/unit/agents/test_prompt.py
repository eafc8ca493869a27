"""The prompt of any log is one that every provider accepts, and holds each message where it was consumed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux.agents.history import prompt
from flux.agents.history.cuts import cut
from flux.agents.history.items import Item, UserItem
from flux.agents.history.transcript import Transcript
from flux.events import Compacted, UserSaid
from flux.messages import AssistantMessage, CallPart, Message, TextPart, ToolCall, ToolResult, UserMessage, text_of
from tests.unit.agents.logs import (
    answer,
    done,
    random_log,
    run,
    session,
    started,
    stop,
    stored,
    transcript,
    user,
)

pytestmark = pytest.mark.behaviour("loop:prompt:invariant")

CHOICES = st.lists(st.integers(0, 999), max_size=60)


def problems(messages: tuple[Message, ...]) -> list[str]:
    """The invariant once more, said differently: what follows an answer are exactly its calls' results."""
    found = []
    for index, message in enumerate(messages):
        if isinstance(message, AssistantMessage):
            ids = [call.id for call in message.calls]
            behind = messages[index + 1 : index + 1 + len(ids)]
            results = [result.call.id for result in behind if isinstance(result, ToolResult)]
            found += [] if results == ids else [f"{ids} are answered by {results}"]
            found += [] if [p.call for p in message.parts if isinstance(p, CallPart)] == ids else ["lost call parts"]
        if isinstance(message, ToolResult):
            found += [] if message.content else ["empty result"]
        else:
            found += [] if message.parts else ["no parts"]
            found += ["empty text"] * any(isinstance(p, TextPart) and not p.text for p in message.parts)
    asked = sum(len(message.calls) for message in messages if isinstance(message, AssistantMessage))
    results_total = sum(isinstance(message, ToolResult) for message in messages)
    return found + ([] if asked == results_total else ["a result without its call"])


@given(CHOICES, st.integers(0, 200))
def test_every_log_gives_a_valid_prompt_wherever_a_crash_cut_it(choices: list[int], length: int) -> None:
    log = Transcript().extend(random_log(choices)[:length])
    joining = [UserItem(log.head, log.pending[id]) for id in log.steers]
    items: list[Item] = [*log.items, *joining]
    assert problems(prompt.build(items)) == []


@given(CHOICES, st.integers(0, 200))
def test_a_kept_transcript_that_is_fed_what_is_new_is_the_same_as_a_fresh_one(choices: list[int], at: int) -> None:
    log = random_log(choices)
    kept = Transcript().extend(log[:at])
    before = prompt.build(kept.items)
    kept.extend(log[at:])
    fresh = Transcript().extend(log)
    assert prompt.build(kept.items) == prompt.build(fresh.items)
    assert (kept.pending, kept.run, kept.turns, kept.tokens) == (fresh.pending, fresh.run, fresh.turns, fresh.tokens)
    if not any(isinstance(s.entry, Compacted) for s in log[at:]) and kept.run is None:
        assert [text for text in texts(before) if text not in texts(prompt.build(kept.items))] == []


def texts(messages: tuple[Message, ...]) -> list[str]:
    return [text_of(message.parts) for message in messages if isinstance(message, UserMessage)]


@given(CHOICES)
def test_each_consumed_message_stands_in_the_prompt_once(choices: list[int]) -> None:
    entries = [s for s in random_log(choices) if not isinstance(s.entry, Compacted)]
    log = Transcript().extend(stored(s.entry for s in entries))  # type: ignore[misc]
    said = {s.entry.id: s.entry for s in entries if isinstance(s.entry, UserSaid)}
    consumed = [text_of(entry.parts) for id, entry in said.items() if id not in log.pending and text_of(entry.parts)]
    assert sorted(texts(prompt.build(log.items))) == sorted(consumed)


@pytest.mark.behaviour("loop:compaction:keeps-calls-whole")
@given(CHOICES, st.integers(1, 40))
def test_a_cut_never_parts_a_call_from_its_result(choices: list[int], keep: int) -> None:
    entries = random_log(choices)
    log = Transcript().extend(entries)
    found = cut(log, keep)
    if found is None:
        return
    upto = found.upto
    older = prompt.build(item for item in log.items if item.seq <= upto)
    assert 1 <= upto < log.head
    before = len(log.items)
    log.extend(stored([*(s.entry for s in entries), Compacted(upto=upto, summary="Before.")])[len(entries) :])  # type: ignore[list-item]
    newer = prompt.build(log.items)
    assert problems(older) == problems(newer) == []
    assert texts(newer)[0].endswith("Before.")
    assert sum(text.startswith(prompt.SUMMARY) for text in texts(newer)) == 1
    assert len(log.items) <= before


def test_a_steer_stands_behind_the_results_it_came_in_between() -> None:
    log = transcript(
        session(),
        user("u1", text="first"),
        run("u1"),
        answer("", "c1", id="m1"),
        started("c1"),
        user("u2", "steer", "and this"),
        done("c1"),
        answer("done", id="m2", inputs=("u2",)),
    )
    kinds = [type(message).__name__ for message in prompt.build(log.items)]
    assert kinds == ["UserMessage", "AssistantMessage", "ToolResult", "UserMessage", "AssistantMessage"]


def test_results_stand_in_the_order_of_their_calls_whatever_ended_first() -> None:
    log = transcript(
        session(),
        user("u1"),
        run("u1"),
        answer("", "c1", "c2"),
        done("c2", content="two"),
        done("c1", content="one"),
    )
    results = [message.content for message in prompt.build(log.items) if isinstance(message, ToolResult)]
    assert results == ["one", "two"]


def test_a_call_of_an_ended_run_without_a_result_is_told_as_interrupted() -> None:
    log = transcript(session(), user("u1"), run("u1"), answer("", "c1"), stop())
    (result,) = [message for message in prompt.build(log.items) if isinstance(message, ToolResult)]
    assert result.is_error
    assert "interrupted" in result.content


CALL = ToolCall("c1", "look")
ASKING = AssistantMessage((CallPart("c1"),), (CALL,))


@pytest.mark.parametrize(
    "messages",
    [
        (ASKING,),
        (ASKING, UserMessage((TextPart("hello"),))),
        (ToolResult(CALL, "seen"),),
        (ASKING, ToolResult(CALL, "seen"), ToolResult(CALL, "seen")),
        (ASKING, ToolResult(CALL, "")),
        (UserMessage(()),),
        (UserMessage((TextPart(""),)),),
        (AssistantMessage(()),),
    ],
)
def test_a_broken_prompt_is_refused_before_it_is_sent(messages: tuple[Message, ...]) -> None:
    with pytest.raises(prompt.PromptBroken):
        prompt.check(messages)
