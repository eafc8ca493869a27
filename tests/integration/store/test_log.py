"""The fenced log under concurrency: one writer at a time, whoever believes what."""

import itertools
import json
import random
import uuid

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flux.errors import Fenced
from flux.events import AssistantSaid, Cancelled, ChatResponse, Entry, RunFailed, RunStarted, ToolDone, UsageCounted
from flux.messages import TextPart, Usage, text_of
from flux.store import executions, interrupts, log, ownership
from flux.store.database import Database
from flux.store.executions import Execution
from flux.store.log import Then
from tests.integration.states import ANN, EVE, HELLO, Sessions

Script = list[str]
scripts = st.lists(
    st.lists(
        st.sampled_from(["claim", "claim", "append", "append", "append", "reap", "hand_back", "admit", "rest"]),
        min_size=3,
        max_size=12,
    ),
    min_size=2,
    max_size=6,
)
numbers = itertools.count(1)


class Claimant:
    """A worker that keeps believing in what it once claimed."""

    def __init__(self, database: Database, id: str, rivals: "list[Claimant]") -> None:
        self.database, self.id, self.rivals = database, id, rivals
        self.sessions = Sessions(database)
        self.name = f"w-{uuid.uuid4()}"
        self.mine: Execution | None = None
        self.epochs: list[int] = []
        self.landed: dict[int, int] = {}  # number of the entry -> seq
        self.refused: list[int] = []

    async def act(self, script: Script) -> None:
        for step in script:
            await getattr(self, step)()

    async def claim(self) -> None:
        row = await self.database.write(ownership.claim(self.id, self.name))
        if row is not None:
            self.mine = row
            self.epochs.append(row.epoch)

    async def append(self, then: Then | None = None) -> bool:
        if self.mine is None:
            return False
        mine = [next(numbers) for _ in range(random.randint(1, 3))]
        entries = [UsageCounted(tokens=Usage(input=number)) for number in mine]
        try:
            done = await self.sessions.append(self.mine, *entries, then=then)
        except Fenced:
            self.refused += mine
            return False
        self.landed |= {number: row.seq for number, row in zip(mine, done.rows, strict=True)}
        return True

    async def rest(self) -> None:
        await self.append(Then("idle"))

    async def reap(self) -> None:
        rival = random.choice(self.rivals)
        await self.database.write(ownership.reap(rival.name, (0.0,)))

    async def hand_back(self) -> None:
        if self.mine is not None:
            await self.database.write(ownership.hand_back(self.id, self.mine.epoch, failed=False, backoff=0))

    async def admit(self) -> None:
        await self.sessions.admission.admit(ANN, self.id, HELLO)


@pytest.mark.behaviour("store:log:one-writer")
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(scripts=scripts, seed=st.integers(0, 1000))
async def test_only_the_owner_of_the_present_epoch_writes(
    database: Database, other_database: Database, scripts: list[Script], seed: int
) -> None:
    random.seed(seed)
    sessions = Sessions(database)
    id = await sessions.scheduled()
    claimants: list[Claimant] = []
    claimants += [Claimant((database, other_database)[n % 2], id, claimants) for n in range(len(scripts))]
    async with anyio.create_task_group() as group:
        for claimant, script in zip(claimants, scripts, strict=True):
            group.start_soon(claimant.act, script)

    await sessions.entries(id)  # no gaps, and the head is the last seq
    rows = await database.read(log.read(ANN, id))
    found = {json.loads(row.body)["tokens"]["input"]: row.seq for row in rows if row.type == "usage"}
    assert found == {number: seq for claimant in claimants for number, seq in claimant.landed.items()}
    assert [row.epoch for row in rows] == sorted(row.epoch for row in rows)
    epochs = [epoch for claimant in claimants for epoch in claimant.epochs]
    assert len(epochs) == len(set(epochs))
    for claimant in claimants:
        written = {row.epoch for row in rows if row.seq in claimant.landed.values()}
        assert written <= set(claimant.epochs)

    now = await sessions.row(id)
    for claimant in claimants:
        if claimant.mine is not None:
            owns = now.state == "running" and claimant.mine.epoch == now.epoch
            assert await claimant.append() is owns


@pytest.mark.behaviour("store:log:one-claim")
async def test_of_many_who_claim_one_wins(database: Database, other_database: Database) -> None:
    sessions = Sessions(database)
    id = await sessions.scheduled()
    rivals = [Claimant(side, id, []) for side in (database, other_database) for _ in range(10)]
    async with anyio.create_task_group() as group:
        for rival in rivals:
            group.start_soon(rival.claim)
    (winner,) = [rival for rival in rivals if rival.mine]
    row = await sessions.row(id)
    assert (row.state, row.worker, row.epoch) == ("running", winner.name, 1)


@pytest.mark.behaviour("store:log:one-claim")
@pytest.mark.parametrize("state", ["idle", "running", "waiting", "backed_off", "ended", "driven"])
async def test_only_what_is_scheduled_and_due_can_be_claimed(database: Database, state: str) -> None:
    sessions = Sessions(database)
    id = await getattr(sessions, state)()
    before = await sessions.row(id)
    assert await database.write(ownership.claim(id, "w")) is None
    assert await sessions.row(id) == before


@pytest.mark.behaviour("store:log:one-writer")
@pytest.mark.parametrize("state", ["idle", "scheduled", "waiting", "backed_off", "ended"])
async def test_nobody_appends_to_what_does_not_run(database: Database, state: str) -> None:
    sessions = Sessions(database)
    id = await getattr(sessions, state)()
    before = await sessions.row(id)
    with pytest.raises(Fenced):
        await sessions.append(before, UsageCounted(tokens=Usage()))
    assert await sessions.row(id) == before
    assert len(await sessions.entries(id)) == before.head


@pytest.mark.behaviour("store:log:run-bookkeeping")
async def test_an_end_entry_closes_the_run_its_questions_and_its_failures(database: Database) -> None:
    sessions = Sessions(database)
    row = await sessions.claim(await sessions.backed_off_now())
    question = await sessions.ask(row)
    assert (row.failures, row.last_error) == (1, None)
    await sessions.append(row, RunFailed(message="it broke"))
    after = await sessions.row(row.id)
    assert (after.run_id, after.failures, after.turns, after.last_error) == (None, 0, 0, "it broke")
    assert await database.read(interrupts.list_open(ANN, row.id)) == []
    asked = await database.read(interrupts.get(ANN, row.id, question))
    assert asked is not None
    assert asked.state == "cancelled"
    await sessions.append(row, RunStarted(run="r2", inputs=()), ChatResponse(content="Hi.", turn=1))
    after = await sessions.row(row.id)
    assert (after.run_id, after.turns, after.last_error, after.state) == (None, 1, None, "running")


@pytest.mark.behaviour("store:log:run-bookkeeping")
async def test_progress_resets_the_failures_and_other_entries_do_not(database: Database) -> None:
    sessions = Sessions(database)
    row = await sessions.claim(await sessions.backed_off_now())
    started = RunStarted(run="r9", inputs=())
    await sessions.append(row, started, UsageCounted(tokens=Usage()))
    assert ((await sessions.row(row.id)).failures, (await sessions.row(row.id)).run_id) == (1, "r9")
    await sessions.append(row, ToolDone(call="c", name="shell", status="success", outcome="success", content=""))
    assert (await sessions.row(row.id)).failures == 0


@pytest.mark.behaviour("store:log:leaving")
async def test_leaving_writes_the_last_entry_and_the_state_together(database: Database) -> None:
    sessions = Sessions(database)
    row = await sessions.row(await sessions.running())
    then = Then("waiting", due=12.5, waiting_for="input")
    done = await sessions.append(row, ChatResponse(content="", turn=1), seen=row.head, then=then)
    after = await sessions.row(row.id)
    assert (done.state, done.head) == ("waiting", row.head + 1)
    assert (after.state, after.due, after.waiting_for, after.worker) == ("waiting", 12.5, "input", None)
    assert after.epoch == row.epoch


@pytest.mark.behaviour("store:log:read")
async def test_entries_are_read_in_pages_and_as_they_were_written(database: Database) -> None:
    sessions = Sessions(database)
    row = await sessions.row(await sessions.running())
    entries: list[Entry] = [UsageCounted(tokens=Usage(input=n)) for n in range(7)]
    done = await sessions.append(row, *entries)
    assert await database.read(log.read(ANN, row.id, row.head)) == list(done.rows)
    pages = [await database.read(log.read(ANN, row.id, row.head + n, 3)) for n in (0, 3, 6)]
    assert [r for page in pages for r in page] == list(done.rows)
    assert [r.stored().entry for r in done.rows] == entries
    assert {(r.epoch, r.run) for r in done.rows} == {(row.epoch, row.run_id)}
    assert await database.read(log.read(EVE, row.id)) == []


@pytest.mark.behaviour("store:log:load")
async def test_a_run_loads_of_the_ends_that_went_well_only_the_newest(database: Database) -> None:
    sessions = Sessions(database)
    row = await sessions.row(await sessions.running())
    ends = (ChatResponse(content="a", turn=1), RunFailed(message="b"), ChatResponse(content="c", turn=2), Cancelled())
    await sessions.append(row, *ends, RunStarted(run="r", inputs=()))
    everything = [row.stored() for row in await database.read(log.read(ANN, row.id))]
    newer = [stored for stored in everything if stored.entry != ends[0]]
    for after in range(len(everything) + 1):
        expected = [stored for stored in newer if stored.seq > after]
        assert await database.read(log.load(ANN, row.id, after)) == expected


@pytest.mark.behaviour("store:log:any-text")
@pytest.mark.parametrize(("text", "read"), [("\ud83d\ude00", "😀"), ("a\ud800", "a\ufffd"), ("a\x00b", "a\x00b")])
async def test_an_answer_of_any_text_is_kept_and_can_be_searched(database: Database, text: str, read: str) -> None:
    """A model may send a character in two halves, or one that a column of Postgres cannot hold."""
    sessions = Sessions(database)
    row = await sessions.row(await sessions.running())
    await sessions.append(row, AssistantSaid(message_id="m", parts=(TextPart(f"before {text}"),)))
    *_, said = await sessions.entries(row.id)
    assert isinstance(said, AssistantSaid)
    assert text_of(said.parts) == f"before {read}"
    assert len(await database.scan(executions.list_sessions(ANN, q="before"))) == 1
