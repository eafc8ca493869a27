"""Timers, taking over from dead workers, and handing back: HEART 3, TIMER, REAP and HANDBACK."""

import time

import pytest

from flux.engine.dispatching.pools import Offer, Resources
from flux.errors import Fenced
from flux.events import UsageCounted
from flux.messages import Usage
from flux.store import ownership, workers
from flux.store.database import one
from flux.store.log import Then
from tests.integration.states import HOUR, WORKER, Sessions

BACKOFFS = (0.0, 60.0, HOUR)


@pytest.mark.behaviour("engine:timer:wakes")
async def test_the_sweep_wakes_what_is_due_and_tells_when_the_next_is(sessions: Sessions) -> None:
    due, later, forever = [await sessions.row(await sessions.running()) for _ in range(3)]
    await sessions.append(due, then=Then("waiting", due=time.time() - 1, waiting_for="retry"))
    await sessions.append(later, then=Then("waiting", due=time.time() + 100))
    await sessions.append(forever, then=Then("waiting"))
    ids, seconds = await sessions.database.write(ownership.sweep(("default",), 10))
    assert ids == [due.id]
    assert seconds is not None
    assert 90 < seconds <= 100
    woken = await sessions.row(due.id)
    assert (woken.state, woken.waiting_for, woken.run_id, woken.epoch) == ("scheduled", None, due.run_id, due.epoch)
    assert [(await sessions.row(row.id)).state for row in (later, forever)] == ["waiting", "waiting"]


@pytest.mark.behaviour("engine:timer:wakes")
async def test_a_backed_off_session_is_the_next_timer_and_a_driven_child_is_none(sessions: Sessions) -> None:
    await sessions.backed_off()
    child = await sessions.driven()
    await sessions.database.write(one("update executions set state = 'waiting', due = 1.0 where id = :id", id=child))
    ids, seconds = await sessions.database.write(ownership.sweep(("default",), 10))
    assert ids == []
    assert seconds is not None
    assert HOUR - 60 < seconds <= HOUR
    assert (await sessions.row(child)).state == "waiting"


@pytest.mark.behaviour("engine:timer:oldest-first")
async def test_the_sweep_gives_the_oldest_of_its_pool_first_and_no_more_than_asked(sessions: Sessions) -> None:
    ids = [await sessions.scheduled() for _ in range(4)]
    for n, id in enumerate(reversed(ids)):
        await sessions.database.write(
            one("update executions set due = :due, pool = :pool where id = :id", id=id, due=float(n), pool="own")
        )
    await sessions.scheduled()
    assert await sessions.database.write(ownership.sweep(("own",), 3)) == (ids[:0:-1], None)


@pytest.mark.behaviour("engine:reap:hands-back")
async def test_the_runs_of_a_dead_worker_are_scheduled_again_with_back_off_and_fenced(sessions: Sessions) -> None:
    once, twice = await sessions.scheduled(), await sessions.backed_off_now()
    rows = [await sessions.claim(id, "dead") for id in (once, twice)]
    alive = await sessions.claim(await sessions.scheduled(), "alive")
    reaped = await sessions.database.write(ownership.reap("dead", BACKOFFS))
    assert sorted(reaped) == sorted([once, twice])
    for row, failures, backoff in zip(rows, (1, 2), (0.0, 60.0), strict=True):
        after = await sessions.row(row.id)
        assert (after.state, after.worker, after.epoch, after.failures) == ("scheduled", None, row.epoch + 1, failures)
        assert after.run_id == row.run_id
        assert after.due is not None
        assert backoff - 5 < after.due - after.updated <= backoff
        with pytest.raises(Fenced):
            await sessions.append(row, UsageCounted(tokens=Usage()))
        assert not await sessions.database.write(ownership.hand_back(row.id, row.epoch, failed=True, backoff=0))
    assert await sessions.row(alive.id) == alive
    assert await sessions.database.write(ownership.reap("dead", BACKOFFS)) == []


@pytest.mark.behaviour("engine:reap:back-off-grows")
async def test_the_back_off_of_a_run_that_kills_its_process_grows_to_the_last_step(sessions: Sessions) -> None:
    id, waits = await sessions.scheduled(), []
    for n in range(5):
        await sessions.claim(id, f"w{n}")
        await sessions.database.write(ownership.reap(f"w{n}", BACKOFFS))
        row = await sessions.row(id)
        waits.append(round((row.due or 0) - row.updated, 3))
        await sessions.database.write(one("update executions set due = 0 where id = :id", id=id))
    assert waits == [0.0, 60.0, HOUR, HOUR, HOUR]
    assert (await sessions.row(id)).failures == 5


@pytest.mark.behaviour("engine:reap:hands-back")
async def test_reaping_fences_the_children_that_run_inside(sessions: Sessions) -> None:
    child = await sessions.driven()
    before = await sessions.row(child)
    root = await sessions.row(before.root)
    assert root.worker == before.worker
    reaped = await sessions.database.write(ownership.reap(root.worker or "", BACKOFFS))
    after = await sessions.row(child)
    assert reaped == [root.id]
    assert (after.state, after.epoch) == (before.state, before.epoch + 1)


@pytest.mark.behaviour("engine:hand-back:states")
@pytest.mark.parametrize("failed", [False, True])
async def test_handing_back_schedules_and_counts_only_failures(sessions: Sessions, failed: bool) -> None:
    child = await sessions.driven()
    row = await sessions.row((await sessions.row(child)).root)
    before = await sessions.row(child)
    assert await sessions.database.write(ownership.hand_back(row.id, row.epoch, failed=failed, backoff=30))
    after = await sessions.row(row.id)
    assert (after.state, after.worker, after.epoch) == ("scheduled", None, row.epoch + 1)
    assert (after.failures, after.run_id) == (int(failed), row.run_id)
    assert round((after.due or 0) - after.updated, 3) == 30
    assert (await sessions.row(child)).epoch == before.epoch + 1


@pytest.mark.behaviour("engine:hand-back:states")
@pytest.mark.parametrize("state", ["idle", "scheduled", "waiting", "backed_off", "ended"])
async def test_what_does_not_run_is_not_handed_back(sessions: Sessions, state: str) -> None:
    row = await sessions.row(await getattr(sessions, state)())
    assert not await sessions.database.write(ownership.hand_back(row.id, row.epoch, failed=True, backoff=0))
    assert await sessions.row(row.id) == row


@pytest.mark.behaviour("engine:recovery:look")
async def test_a_worker_sees_who_owns_what_and_whether_there_is_work(sessions: Sessions) -> None:
    async def look() -> ownership.Look:
        return await sessions.database.read(ownership.look(("default",), "a", 20))

    assert await look() == ownership.Look(False, {}, [])
    mine = await sessions.claim(await sessions.scheduled(), "a")
    for worker in ("b", "c"):
        await sessions.claim(await sessions.scheduled(), worker)
        await sessions.claim(await sessions.scheduled(), worker)
    await sessions.database.write(workers.beat(workers.Presence("b")))
    await sessions.backed_off()
    await sessions.waiting()
    await sessions.driven()
    own = [ownership.Owned(mine.id, mine.pool, mine.epoch, mine.failures)]
    assert await look() == ownership.Look(False, {"b": False, "c": True, WORKER: True}, own)
    id = await sessions.scheduled()
    assert (await look()).work
    await sessions.claim(id, "a")
    assert not (await look()).work
    id = await sessions.waiting()
    await sessions.database.write(one("update executions set due = :now where id = :id", id=id))
    assert (await look()).work


@pytest.mark.behaviour("scale:pools:offer")
async def test_a_worker_finds_the_work_of_its_pools_that_it_can_do(sessions: Sessions) -> None:
    places = {"default": None, "zone=eu": None, "zone=us": None, "caller": None, "gpu": '{"gpu":1}'}
    ids = {name: await sessions.scheduled() for name in places}
    for name, requests in places.items():
        pool = "default" if requests else name
        await sessions.database.write(
            one(
                "update executions set pool = :pool, requests = :requests where id = :id",
                id=ids[name],
                pool=pool,
                requests=requests,
            )
        )

    async def found(*pools: str, gpu: int = 0) -> set[str]:
        offer = Offer(pools, Resources(gpu=gpu))
        claimable, _ = await sessions.database.write(ownership.sweep(offer.pools, 10, offer.fits))
        return {name for name, id in ids.items() if id in claimable}

    assert await found("default") == {"default"}
    assert await found("default", gpu=2) == {"default", "gpu"}
    assert await found("default", "zone=eu") == {"default", "zone=eu"}
    assert await found("caller") == set()
