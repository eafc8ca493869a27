"""Stopping a run and ending a session from outside: HEART 3, CANCEL and END."""

import time
from typing import Any

import anyio
import pytest

from flux.errors import Conflict, Fenced, SessionEnded, SessionNotFound
from flux.events import Cancelled, CancelRequested, ChatResponse, RunStarted, SessionEndedEntry, UsageCounted
from flux.messages import Usage
from flux.store import executions, interrupts, ownership
from flux.store.database import Database, Steps, one
from flux.store.log import Then
from tests.integration.states import ANN, EVE, HELLO, Sessions, a_session, admission_on


@pytest.mark.behaviour("engine:cancel:asks-the-run")
@pytest.mark.parametrize(
    ("state", "then"),
    [("scheduled", "scheduled"), ("running", "running"), ("waiting", "scheduled"), ("backed_off", "scheduled")],
)
async def test_cancel_names_the_run_and_wakes_only_what_waits(sessions: Sessions, state: str, then: str) -> None:
    id = await getattr(sessions, state)()
    before = await sessions.row(id)
    admitted = await sessions.admission.cancel(ANN, id)
    after = await sessions.row(id)
    assert admitted is not None
    assert admitted.seq == after.head
    assert await sessions.entries(id, before.head) == [CancelRequested(run=before.run_id or "", by="ann")]
    assert (after.state, after.run_id, after.epoch) == (then, before.run_id, before.epoch)
    if before.state == "waiting":
        assert after.due is not None
        assert after.due <= time.time()
    else:
        assert after.due == before.due


@pytest.mark.behaviour("engine:cancel:nothing-runs")
@pytest.mark.parametrize("state", ["idle", "between_runs"])
async def test_cancel_with_no_run_open_changes_nothing(sessions: Sessions, state: str) -> None:
    id = await getattr(sessions, state)()
    before = await sessions.row(id)
    assert await sessions.admission.cancel(ANN, id) is None
    assert await sessions.row(id) == before


class RunEndsBetween:
    """A database where a run ends, and the next begins, just after it was looked at."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def read(self, steps: Steps[Any]) -> Any:
        row = await self._sessions.database.read(steps)
        await self._sessions.append(row, ChatResponse(content="", turn=1))
        await self._sessions.append(row, RunStarted(run="next", inputs=()))
        return row

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sessions.database, name)


@pytest.mark.behaviour("engine:cancel:after-the-end")
async def test_cancel_does_not_stop_a_run_that_began_after_it_was_asked_for(sessions: Sessions) -> None:
    id = await sessions.running()
    await admission_on(RunEndsBetween(sessions)).cancel(ANN, id)
    assert (await sessions.row(id)).run_id == "next"
    assert not [entry for entry in await sessions.entries(id) if isinstance(entry, CancelRequested)]


@pytest.mark.behaviour("engine:cancel:after-the-end")
async def test_cancel_that_races_the_end_of_the_run_never_names_another_run(
    sessions: Sessions, other_database: Database
) -> None:
    there = Sessions(other_database)
    for attempt in range(20):
        row = await sessions.row(await sessions.running())

        async def finish(row: executions.Execution = row) -> None:
            await sessions.append(row, ChatResponse(content="", turn=1), then=Then("idle"))

        async def cancel(id: str = row.id) -> None:
            await there.admission.cancel(ANN, id)

        async with anyio.create_task_group() as group:
            for step in (finish, cancel) if attempt % 2 else (cancel, finish):
                group.start_soon(step)
        asked = [entry for entry in await sessions.entries(row.id) if isinstance(entry, CancelRequested)]
        assert asked in ([], [CancelRequested(run=row.run_id or "", by="ann")])
        assert (await sessions.row(row.id)).state == "idle"


@pytest.mark.behaviour("engine:end:any-state")
@pytest.mark.parametrize("state", ["idle", "scheduled", "running", "between_runs", "waiting", "backed_off"])
async def test_ending_closes_the_session_in_every_state(sessions: Sessions, state: str) -> None:
    id = await getattr(sessions, state)()
    before = await sessions.row(id)
    admitted = await sessions.admission.end(ANN, id, "user_exit")
    after = await sessions.row(id)
    ended = SessionEndedEntry(reason="user_exit", turns=before.turns)
    assert await sessions.entries(id, before.head) == ([Cancelled(), ended] if before.run_id else [ended])
    assert (after.state, after.outcome, after.epoch, after.run_id) == ("ended", "cancelled", before.epoch + 1, None)
    assert (after.worker, after.due, after.waiting_for, admitted.seq) == (None, None, None, after.head)


@pytest.mark.behaviour("engine:end:fences-the-worker")
async def test_the_worker_of_an_ended_session_is_fenced(sessions: Sessions) -> None:
    row = await sessions.row(await sessions.running())
    await sessions.admission.end(ANN, row.id)
    with pytest.raises(Fenced):
        await sessions.append(row, UsageCounted(tokens=Usage()))
    assert not await sessions.database.write(ownership.hand_back(row.id, row.epoch, failed=True, backoff=0))
    assert (await sessions.row(row.id)).state == "ended"


@pytest.mark.behaviour("engine:end:closes-questions")
async def test_ending_closes_open_questions_and_fences_driven_children(sessions: Sessions) -> None:
    id, _ = await sessions.asking()
    child = await sessions.driven()
    await sessions.database.write(one("update executions set root = :id where id = :child", id=id, child=child))
    before = await sessions.row(child)
    await sessions.admission.end(ANN, id)
    assert await sessions.database.read(interrupts.list_open(ANN, id)) == []
    assert (await sessions.row(child)).epoch == before.epoch + 1


@pytest.mark.behaviour("engine:end:once", "engine:cancel:not-from-outside")
async def test_what_is_ended_driven_or_unknown_is_neither_cancelled_nor_ended(sessions: Sessions) -> None:
    ended, driven, open_ = await sessions.ended(), await sessions.driven(), await sessions.idle()
    rows = [await sessions.row(id) for id in (ended, driven, open_)]
    for act in (sessions.admission.cancel, sessions.admission.end):
        with pytest.raises(SessionEnded):
            await act(ANN, ended)
        with pytest.raises(Conflict, match=rows[1].root):
            await act(ANN, driven)
        for scope, id in ((ANN, "nowhere"), (EVE, open_)):
            with pytest.raises(SessionNotFound):
                await act(scope, id)
    assert [await sessions.row(id) for id in (ended, driven, open_)] == rows


@pytest.mark.behaviour("engine:end:once")
async def test_of_many_who_end_a_session_one_does(sessions: Sessions, other_database: Database) -> None:
    there = Sessions(other_database)
    id = await sessions.running()
    refused: list[str] = []

    async def end(side: Sessions) -> None:
        try:
            await side.admission.end(ANN, id)
        except SessionEnded:
            refused.append(id)

    async with anyio.create_task_group() as group:
        for n in range(6):
            group.start_soon(end, (sessions, there)[n % 2])
    assert len(refused) == 5
    assert [type(entry) for entry in (await sessions.entries(id))[-2:]] == [Cancelled, SessionEndedEntry]


@pytest.mark.behaviour("engine:end:frees-the-name")
async def test_the_name_of_an_ended_session_can_be_used_again(sessions: Sessions) -> None:
    session = a_session(instance="ticket-1", name="chat")
    first = await sessions.admission.start(ANN, session, HELLO)
    await sessions.admission.end(ANN, first.id)
    second = await sessions.admission.start(ANN, session, HELLO)
    assert second.id != first.id
