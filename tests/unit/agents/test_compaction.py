"""Compaction: what is cut, and what the summarising model is told."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux.agents.history import prompt
from flux.agents.history.cuts import Compact, cut, size
from flux.agents.history.items import SummaryItem, UserItem
from flux.agents.history.summary import MOST_SKILL_CHARS
from flux.agents.history.transcript import Transcript
from flux.agents.turn.compaction import MOST_ASKED, SYSTEM, TURN_SYSTEM, SummaryFailed, summarise
from flux.events import AssistantSaid, ChatResponse, Compacted, Entry, ToolDone
from flux.messages import CallPart, ModelFailure, ToolCall, UserMessage, text_of
from flux.models.base import ModelRequest
from flux.models.scripted import Turn
from flux.testing import Reply, ScriptedModel
from tests.unit.agents.logs import answer, done, run, session, stored, transcript, user

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
    with pytest.raises(SummaryFailed, match="summarising the conversation failed"):
        await summarise(transcript(*TALK), Compact(6), ScriptedModel([turn]))


#: A turn that is under way, after one that has ended.
UNDER_WAY = (
    *TALK[:-2],
    user("u2", text="Build the house."),
    run("u2", id="r2"),
    answer("First the ground.", "c2", id="m3"),
    done("c2", content="ground " * 10),
    answer("Now the walls.", "c3", id="m4"),
    done("c3", content="walls"),
)


def writer(*turns: Turn) -> ScriptedModel:
    """A model that answers in turn, whatever it is asked."""
    left = list(turns)
    return ScriptedModel(lambda request: left.pop(0))


def told(request: ModelRequest) -> str:
    """What a summary's model reads."""
    message = request.messages[0]
    assert isinstance(message, UserMessage)
    return text_of(message.parts)


def shown(log: Transcript, made: Compacted) -> str:
    """The first message of the next prompt."""
    log.extend(stored([*[user("x")] * log.head, made])[log.head :])
    first = prompt.build(log.items)[0]
    assert isinstance(first, UserMessage)
    return text_of(first.parts)


@pytest.mark.behaviour("compaction:split-turn")
async def test_a_turn_that_is_cut_in_two_is_told_by_itself() -> None:
    log, model = transcript(*UNDER_WAY), writer(Reply("They need milk."), Reply("The ground is laid."))
    step = cut(log, 1)
    assert step is not None
    made = await summarise(log, step, model)
    assert [request.system for request in model.requests] == [SYSTEM, TURN_SYSTEM]
    assert "Buy milk." in told(model.requests[0])
    assert "ground" not in told(model.requests[0])
    assert "ground" in told(model.requests[1])
    assert "milk" not in told(model.requests[1])
    assert (made.summary, made.asked, made.turn) == ("They need milk.", "Build the house.", "The ground is laid.")
    told_on = shown(log, made)
    for piece in ("They need milk.", "Build the house.", "The ground is laid."):
        assert piece in told_on


@pytest.mark.behaviour("compaction:split-turn")
async def test_a_turn_that_is_cut_again_keeps_what_was_asked_and_the_history_before_it() -> None:
    before = Compacted(upto=11, summary="They need milk.", asked="Build the house.", turn="The ground is laid.")
    more = (before, answer("Now the roof.", "c4", id="m5"), done("c4", content="roof"))
    log, model = transcript(*UNDER_WAY, *more), writer(Reply("Ground and walls stand."))
    step = cut(log, 1)
    assert step is not None
    made = await summarise(log, step, model)
    assert (made.summary, made.asked, made.turn) == ("They need milk.", "Build the house.", "Ground and walls stand.")
    assert "The ground is laid." in told(model.requests[0])
    assert "walls" in told(model.requests[0])


@pytest.mark.behaviour("compaction:split-turn")
async def test_the_next_turn_makes_a_cut_one_a_part_of_the_history() -> None:
    before = Compacted(upto=11, summary="They need milk.", asked="Build the house.", turn="The ground is laid.")
    ended = (answer("It stands.", id="m5"), ChatResponse(content="", turn=2), user("u3", text="Thanks."))
    log, model = transcript(*UNDER_WAY, before, *ended, run("u3", id="r3")), writer(Reply("A house was built."))
    step = cut(log, 1)
    assert step is not None
    made = await summarise(log, step, model)
    assert (made.summary, made.asked, made.turn) == ("A house was built.", "", "")
    for piece in ("They need milk.", "Build the house.", "The ground is laid.", "It stands."):
        assert piece in told(model.requests[0])


@pytest.mark.behaviour("compaction:split-turn")
@pytest.mark.parametrize(("asked", "calls"), [("Look.", 0), ("Look " * MOST_ASKED, 1)])
async def test_a_question_alone_is_kept_and_costs_no_summary_unless_it_is_long(asked: str, calls: int) -> None:
    talk = (session(), user("u1", text=asked), run("u1"), answer("", "c1", id="m1"), done("c1", content="x" * 99))
    log, model = transcript(*talk), writer(Reply("Long."))
    step = cut(log, 1)
    assert step is not None
    made = await summarise(log, step, model)
    assert len(model.requests) == calls
    assert made.asked.startswith("Look")
    assert len(made.asked) <= MOST_ASKED + 10


def used(tool: str, **args: object) -> tuple[Entry, Entry]:
    """A call that went well."""
    id = f"{tool} {args}"
    said = AssistantSaid(message_id=id, parts=(CallPart(id),), calls=(ToolCall(id, tool, dict(args)),), stop="calls")
    result = ToolDone(call=id, name=tool, status="success", outcome="success", content=f"text of {args}")
    return said, result


@pytest.mark.behaviour("compaction:verbatim")
async def test_skills_in_force_and_files_stay_word_for_word_over_compactions() -> None:
    talk = (
        *used("use_skill", name="tiling"),
        *used("read_file", path="a.txt"),
        *used("edit_file", path="a.txt"),
        *used("read_file", path="b.txt"),
        *used("write_file", path="c.txt"),
        *used("read_file", path="a.txt"),
    )
    before = Compacted(upto=3, summary="S", skills={"paint": "blue", "tiling": "old"}, read=("z", "b.txt"))
    entries = (session(), user("u1"), run("u1"), before, *talk, answer("ok", id="last"))
    log = transcript(*entries)
    step = cut(log, 1)
    assert step is not None
    made = await summarise(log, step, writer(Reply("One."), Reply("Two.")))
    assert made.skills == {"paint": "blue", "tiling": "text of {'name': 'tiling'}"}
    assert (made.read, made.changed) == (("z", "b.txt", "a.txt"), ("a.txt", "c.txt"))
    told_on = shown(log, made)
    for piece in ("blue", "text of {'name': 'tiling'}", "- b.txt\n- a.txt", "- a.txt\n- c.txt"):
        assert piece in told_on


@pytest.mark.behaviour("compaction:verbatim")
async def test_of_too_many_skills_the_oldest_are_only_named() -> None:
    before = Compacted(upto=1, summary="S", skills={"old": "o" * MOST_SKILL_CHARS, "new": "n"})
    log = transcript(session(), before, user("u1"), run("u1"), answer("hi", id="m1"))
    made = await summarise(log, Compact(4), writer(Reply("One.")))
    assert made.skills == {"old": "", "new": "n"}
    assert "Skill in force: old\n\nToo long to stand here" in shown(log, made)


@pytest.mark.behaviour("compaction:summary:too-long")
async def test_what_is_too_long_for_the_summary_s_model_is_summarised_piece_by_piece() -> None:
    def turn(request: ModelRequest) -> Turn:
        found = [word for word in told(request).split() if word.startswith("fact")]
        return ModelFailure("too long", "overflow") if len(told(request)) > 400 else Reply(" ".join(found[-3:]))

    facts = "\n\n".join(f"fact{n} is {'so ' * 20}" for n in range(20))
    log = transcript(session(), user("u1", text=facts), run("u1"), user("u2"), run("u2", id="r2"))
    model = ScriptedModel(turn)
    assert (await summarise(log, Compact(4), model)).summary == "fact17 fact18 fact19"
    read = "".join(told(request) for request in model.requests if len(told(request)) <= 400)
    assert all(f"fact{n} " in read for n in range(20))
    with pytest.raises(SummaryFailed, match="too long"):
        await summarise(log, Compact(4), ScriptedModel([ModelFailure("too long", "overflow")]))


@pytest.mark.behaviour("compaction:summary:retried")
async def test_a_summary_that_fails_for_a_moment_is_tried_again() -> None:
    down = ModelFailure("down", "transient", retry_after=0.0)
    model = writer(down, down, Reply("They need milk."))
    assert (await summarise(transcript(*TALK), Compact(7), model, attempts=3)).summary == "They need milk."
    with pytest.raises(SummaryFailed, match="down"):
        await summarise(transcript(*TALK), Compact(7), writer(down, down, Reply("late")), attempts=2)


LENGTHS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4000)), min_size=1, max_size=40)


def sized(lengths: Sequence[tuple[int, int]]) -> list[Entry]:
    """A log of turns whose results and texts are so long."""
    entries: list[Entry] = [session()]
    for n, (kind, length) in enumerate(lengths):
        if kind == 0 or n == 0:
            entries += [user(f"u{n}", text="q"), run(f"u{n}", id=f"r{n}")]
        elif kind == 1:
            entries.append(answer("a" * (length // 20), id=f"m{n}"))
        else:
            entries += [answer("", f"c{n}", id=f"m{n}"), done(f"c{n}", content="r" * length * 4)]
    return entries


@pytest.mark.behaviour("compaction:fits")
@given(LENGTHS, st.integers(100, 3000))
def test_what_stays_after_a_compaction_is_the_newest_and_fits(lengths: list[tuple[int, int]], keep: int) -> None:
    entries = sized(lengths)
    log = transcript(*entries)
    step = cut(log, keep)
    total = sum(map(size, log.items))
    if step is None:
        assert len(log.items) == 1 or total <= 2 * keep + len(log.items) * 8
        return
    newest = log.items[-1].seq
    spilled = dict.fromkeys(step.spill, "x" * step.shown)
    log.extend(stored([*entries, Compacted(upto=step.upto, summary="S", spilled=spilled)])[len(entries) :])
    assert log.items[-1].seq == newest
    assert sum(map(size, log.items)) <= 2 * keep + 1000  # the longest text of one answer, and the summary
    prompt.check(prompt.build(log.items))


@pytest.mark.behaviour("compaction:spills")
def test_one_huge_result_does_not_keep_the_rest_from_going() -> None:
    short = (
        session(),
        user("u1", text="Look."),
        run("u1"),
        answer("", "c1", id="m1"),
        done("c1", content="x" * 99_000),
    )
    assert cut(transcript(*short), 1000) == Compact(3, ("c1",), 1000)
    assert cut(transcript(*short), 20_000) == Compact(3)
    alone = (*short, Compacted(upto=3, summary="They look."))
    assert cut(transcript(*alone), 1000) == Compact(3, ("c1",), 1000)
    log = transcript(*alone, Compacted(upto=3, summary="They look.", spilled={"c1": "short"}))
    assert cut(log, 1000) is None
    assert [type(item) for item in log.items[:1]] == [SummaryItem]
    assert log.kept


@pytest.mark.behaviour("compaction:asked:nothing")
def test_who_asks_with_little_history_changes_nothing() -> None:
    log = transcript(*TALK)
    assert cut(log, 1000, must=False) is None
    assert cut(log, 1000) is not None
    assert cut(log, 1, must=False) is not None
    assert isinstance(log.items[0], UserItem)
