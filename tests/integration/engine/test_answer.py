"""Answers to questions: HEART 3, ANSWER."""

import time

import anyio
import msgspec
import pytest

from flux.engine.intake.answers import Admitted, Decision
from flux.engine.intake.inputs import NewMessage
from flux.errors import InterruptDecided, InterruptNotFound, InvalidInput, SessionNotFound
from flux.events import ChatResponse, InterruptAnswered
from flux.store import interrupts
from flux.store.database import Database, Scope
from tests.integration.states import ANN, BOB, EVE, Sessions

YES = Decision("answer", content="blue")
WORDS = {
    "approval": ("approve", "reject"),
    "plan": ("approve", "reject"),
    "elicitation": ("accept", "decline", "cancel"),
    "input": ("answer",),
}


@pytest.mark.behaviour("engine:answer:wakes")
async def test_an_answer_is_logged_and_wakes_the_waiting_session(sessions: Sessions) -> None:
    id, question = await sessions.asking()
    before = await sessions.row(id)
    admitted = await sessions.admission.answer(ANN, id, question, YES)
    after = await sessions.row(id)
    assert (after.state, after.run_id, after.epoch, after.head) == (
        "scheduled",
        before.run_id,
        before.epoch,
        before.head + 1,
    )
    assert after.due is not None
    assert after.due <= time.time()
    assert admitted == Admitted(id, after.head)
    assert await sessions.entries(id, before.head) == [
        InterruptAnswered(id=question, decision="answer", by="ann", content="blue")
    ]
    assert await sessions.database.read(interrupts.list_open(ANN, id)) == []


@pytest.mark.behaviour("engine:answer:while-working")
async def test_an_answer_to_a_working_session_is_only_logged(sessions: Sessions) -> None:
    """Other tools of the wave are still running when the first question is answered."""
    row = await sessions.row(await sessions.running())
    question = await sessions.ask(row)
    await sessions.admission.answer(ANN, row.id, question, YES)
    after = await sessions.row(row.id)
    assert (after.state, after.due, after.worker, after.epoch) == ("running", row.due, row.worker, row.epoch)


@pytest.mark.behaviour("engine:answer:first-wins")
async def test_of_answers_at_the_same_time_exactly_one_wins(sessions: Sessions, other_database: Database) -> None:
    there = Sessions(other_database)
    for _ in range(5):
        id, question = await sessions.asking()
        won: list[str] = []
        lost: list[str] = []

        async def answer(
            side: Sessions,
            who: str,
            id: str = id,
            question: str = question,
            won: list[str] = won,
            lost: list[str] = lost,
        ) -> None:
            decision = Decision("answer", content=who)
            try:
                await side.admission.answer(Scope("acme", who), id, question, decision)
            except InterruptDecided:
                lost.append(who)
            else:
                won.append(who)

        before = (await sessions.row(id)).head
        async with anyio.create_task_group() as group:
            for n in range(8):
                group.start_soon(answer, (sessions, there)[n % 2], f"p{n}")
        (winner,) = won
        assert len(lost) == 7
        (entry,) = await sessions.entries(id, before)
        assert isinstance(entry, InterruptAnswered)
        assert (entry.by, entry.content) == (winner, winner)
        row = await sessions.database.read(interrupts.get(ANN, id, question))
        assert row is not None
        assert (row.state, row.answered_by) == ("answered", winner)


@pytest.mark.behaviour("engine:answer:repeat")
async def test_repeating_ones_own_winning_answer_is_fine_and_changes_nothing(sessions: Sessions) -> None:
    id, question = await sessions.asking()
    first = await sessions.admission.answer(ANN, id, question, YES)
    before = await sessions.row(id)
    again = await sessions.admission.answer(ANN, id, question, YES)
    assert (again.repeated, again.seq) == (True, first.seq)
    for scope, decision in ((ANN, Decision("answer", content="red")), (BOB, YES)):
        with pytest.raises(InterruptDecided) as caught:
            await sessions.admission.answer(scope, id, question, decision)
        assert caught.value.details == {"state": "answered"}
    assert await sessions.row(id) == before
    await sessions.admission.end(ANN, id)
    assert (await sessions.admission.answer(ANN, id, question, YES)).repeated


@pytest.mark.behaviour("engine:answer:words")
@pytest.mark.parametrize("kind", WORDS)
async def test_each_kind_of_question_has_its_words(sessions: Sessions, kind: str) -> None:
    row = await sessions.row(await sessions.running())
    every = {word for words in WORDS.values() for word in words}
    questions = {word: await sessions.ask(row, f"{row.id}-{word}", kind=kind) for word in sorted(every)}
    before = await sessions.row(row.id)
    for word in [*sorted(every - set(WORDS[kind])), "", "Approve", "maybe"]:
        with pytest.raises(InvalidInput, match=WORDS[kind][0]):
            await sessions.admission.answer(ANN, row.id, questions["answer"], Decision(word))
    assert await sessions.row(row.id) == before
    for word in WORDS[kind]:
        await sessions.admission.answer(ANN, row.id, questions[word], Decision(word))
    assert (await sessions.row(row.id)).head == before.head + len(WORDS[kind])


@pytest.mark.behaviour("engine:answer:closed")
async def test_a_question_of_a_finished_run_or_session_is_closed(sessions: Sessions) -> None:
    row = await sessions.row(await sessions.running())
    question = await sessions.ask(row)
    await sessions.append(row, ChatResponse(content="Never mind.", turn=1))
    ended, other = await sessions.asking()
    await sessions.admission.end(ANN, ended)
    for id, asked in ((row.id, question), (ended, other)):
        before = await sessions.row(id)
        with pytest.raises(InterruptDecided, match="cancelled"):
            await sessions.admission.answer(ANN, id, asked, YES)
        assert await sessions.row(id) == before


@pytest.mark.behaviour("engine:answer:unknown")
async def test_a_question_that_is_not_there_is_not_found(sessions: Sessions) -> None:
    id, question = await sessions.asking()
    other = await sessions.running()
    for scope, session, asked, error in (
        (ANN, id, "nothing", InterruptNotFound),
        (ANN, other, question, InterruptNotFound),
        (ANN, "nowhere", question, SessionNotFound),
        (EVE, id, question, SessionNotFound),
    ):
        with pytest.raises(error):
            await sessions.admission.answer(scope, session, asked, YES)
    assert [asked.id for asked in await sessions.database.read(interrupts.list_open(ANN, id))] == [question]


@pytest.mark.behaviour("engine:answer:always")
@pytest.mark.parametrize(
    ("kind", "decision", "granted"),
    [
        ("approval", Decision("approve", always=True), {"shell"}),
        ("approval", Decision("approve"), set()),
        ("approval", Decision("reject", always=True), set()),
        ("plan", Decision("approve", always=True), set()),
    ],
)
async def test_only_an_approval_for_always_grants_the_tool(
    sessions: Sessions, kind: str, decision: Decision, granted: set[str]
) -> None:
    id, question = await sessions.asking(kind=kind)
    await sessions.admission.answer(ANN, id, question, decision)
    assert await sessions.database.read(interrupts.grants(ANN, id)) == granted


@pytest.mark.behaviour("engine:answer:expired")
async def test_an_expired_question_takes_no_answer_and_an_answered_one_does_not_expire(sessions: Sessions) -> None:
    id, question = await sessions.asking()
    other_id, other = await sessions.asking()
    assert await sessions.database.write(interrupts.expire(ANN, id, question))
    with pytest.raises(InterruptDecided, match="expired"):
        await sessions.admission.answer(ANN, id, question, YES)
    await sessions.admission.answer(ANN, other_id, other, YES)
    assert not await sessions.database.write(interrupts.expire(ANN, other_id, other))
    row = await sessions.database.read(interrupts.get(ANN, other_id, other))
    assert row is not None
    assert msgspec.json.decode(row.answer or "")["content"] == "blue"


@pytest.mark.behaviour("engine:answer:driven")
@pytest.mark.parametrize("through", ["asker", "root"])
async def test_an_answer_to_a_driven_session_is_in_its_log_and_its_root_s(sessions: Sessions, through: str) -> None:
    id = await sessions.driven()
    question = await sessions.ask(await sessions.row(id), "q-driven")
    root = (await sessions.row(id)).root
    admitted = await sessions.admission.answer(ANN, id if through == "asker" else root, question, Decision("answer"))
    assert admitted.id == root
    for each in (id, root):
        entry = (await sessions.entries(each))[-1]
        assert isinstance(entry, InterruptAnswered)
        assert entry.id == question
    assert await sessions.database.read(interrupts.list_open(ANN, root)) == []


@pytest.mark.behaviour("engine:waiting-for:cleared")
@pytest.mark.parametrize("wakes", ["answer", "cancel", "interrupt"])
async def test_what_wakes_a_session_clears_what_it_waits_for(sessions: Sessions, wakes: str) -> None:
    id, question = await sessions.asking()
    assert (await sessions.row(id)).waiting_for == "input"
    await sessions.admission.admit(ANN, id, NewMessage("and", mode="steer"))
    assert ((await sessions.row(id)).state, (await sessions.row(id)).waiting_for) == ("waiting", "input")
    if wakes == "answer":
        await sessions.admission.answer(ANN, id, question, Decision("answer"))
    elif wakes == "cancel":
        await sessions.admission.cancel(ANN, id)
    else:
        await sessions.admission.admit(ANN, id, NewMessage("stop that", mode="interrupt"))
    row = await sessions.row(id)
    assert (row.state, row.waiting_for) == ("scheduled", None)
