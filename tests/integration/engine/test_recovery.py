"""Who is dead, who is only silent, and who is left alone."""

import asyncio
import fcntl
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from flux.engine.running.recovery import GONE_SECONDS, WorkerLock, is_alive
from flux.engine.running.run import Run
from flux.store import workers
from flux.store.database import Database, one
from tests.integration.engine.engines import Engine, Unreliable, answer_all
from tests.integration.states import Sessions

HOLD_A_LOCK = """
import pathlib, sys, time
from flux.engine.running.recovery import WorkerLock
lock = WorkerLock(pathlib.Path(sys.argv[1]))
print(lock.id, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "workers"


async def owned_by(database: Database, worker: str, *, silent_for: float = 0) -> str:
    """A session that a worker runs, which was last heard of some seconds ago."""
    sessions = Sessions(database)
    id = await sessions.scheduled()
    await sessions.claim(id, worker)
    await database.write(workers.beat(workers.Presence(worker)))
    await database.write(one("update workers set seen = seen - :s where id = :id", s=silent_for, id=worker))
    return id


@pytest.mark.behaviour("engine:recovery:dead")
async def test_the_runs_of_a_killed_process_are_taken_over_at_once(database: Database, folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD_A_LOCK, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    worker = process.stdout.readline().strip()
    id = await owned_by(database, worker)
    engine = Engine(database)
    lock = WorkerLock(folder)
    recovery = engine.recovery(lock)
    async with engine.working():
        assert await recovery.sweep() == 0
        assert is_alive(folder, worker)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not is_alive(folder, worker)
        assert await recovery.sweep() == 1
        await engine.until(id, "chat_response")
    row = await engine.row(id)
    assert (row.epoch, row.failures) == (3, 0)
    assert not (folder / worker).exists()
    lock.release()


@pytest.mark.behaviour("engine:recovery:frozen")
async def test_a_worker_that_holds_its_lock_but_is_silent_is_taken_for_dead(database: Database, folder: Path) -> None:
    frozen, lock = WorkerLock(folder), WorkerLock(folder)
    id = await owned_by(database, frozen.id, silent_for=30)
    engine = Engine(database)
    assert await engine.recovery(lock).sweep() == 1
    row = await engine.row(id)
    assert (row.state, row.epoch, row.failures, row.worker) == ("scheduled", 2, 1, None)
    assert is_alive(folder, frozen.id)  # its file stays: it may wake up
    frozen.release()
    lock.release()


@pytest.mark.behaviour("engine:recovery:alive")
async def test_a_worker_that_lives_is_left_alone(database: Database, folder: Path) -> None:
    alive, lock = WorkerLock(folder), WorkerLock(folder)
    id = await owned_by(database, alive.id, silent_for=10)
    engine = Engine(database)
    assert await engine.recovery(lock).sweep() == 0
    assert ((await engine.row(id)).state, (await engine.row(id)).worker) == ("running", alive.id)
    alive.release()
    lock.release()


@pytest.mark.behaviour("engine:recovery:alive")
async def test_a_worker_is_alive_from_its_first_claim(
    database: Database, other_database: Database, folder: Path
) -> None:
    """It has had no time yet for a heartbeat of its own, and was silent before, having nothing to do."""
    alive, lock = WorkerLock(folder), WorkerLock(folder)
    await database.write(workers.beat(workers.Presence(alive.id)))
    await database.write(one("update workers set seen = seen - 1000"))
    begun = asyncio.Event()

    async def busy(run: Run) -> None:
        begun.set()
        await asyncio.Event().wait()

    engine = Engine(database, busy, worker=alive.id)
    async with engine.working(grace=0):
        await engine.start()
        await begun.wait()
        assert await Engine(other_database).recovery(lock).sweep() == 0
    alive.release()
    lock.release()


@pytest.mark.behaviour("engine:recovery:no-lock-file")
@pytest.mark.parametrize(("silent_for", "taken"), [(10, 0), (30, 1)])
async def test_without_a_lock_file_the_heartbeat_decides(
    database: Database, folder: Path, silent_for: float, taken: int
) -> None:
    """A worker on another machine, or one that has left in good order."""
    lock = WorkerLock(folder)
    await owned_by(database, "elsewhere-1", silent_for=silent_for)
    assert await Engine(database).recovery(lock).sweep() == taken
    lock.release()


@pytest.mark.behaviour("engine:recovery:no-lock-file")
async def test_a_worker_nobody_ever_heard_of_is_dead(database: Database, folder: Path) -> None:
    lock = WorkerLock(folder)
    sessions = Sessions(database)
    await sessions.claim(await sessions.scheduled(), "ghost")
    assert await Engine(database).recovery(lock).sweep() == 1
    lock.release()


@pytest.mark.behaviour("engine:recovery:not-oneself")
async def test_nobody_takes_over_what_he_runs_himself(database: Database, folder: Path) -> None:
    lock = WorkerLock(folder)
    begun = asyncio.Event()

    async def busy(run: Run) -> None:
        begun.set()
        await asyncio.Event().wait()

    engine = Engine(database, busy, worker=lock.id)
    async with engine.working(grace=0):
        id = await engine.start()
        await begun.wait()
        await database.write(one("update workers set seen = 0"))
        assert await engine.recovery(lock).sweep() == 0
        assert ((await engine.row(id)).state, (await engine.row(id)).epoch) == ("running", 1)
    lock.release()


@pytest.mark.behaviour("engine:recovery:heartbeat")
async def test_a_busy_worker_is_heard_and_an_idle_one_writes_nothing(database: Database, folder: Path) -> None:
    lock = WorkerLock(folder)
    begun = asyncio.Event()

    async def busy(run: Run) -> None:
        begun.set()
        await asyncio.Event().wait()

    engine = Engine(database, busy, worker=lock.id)
    beating = asyncio.create_task(engine.recovery(lock, heartbeat=0.01).keep_beating())
    async with engine.working(grace=0):
        assert await database.read(one("select id from workers")) == []
        await engine.start()
        await begun.wait()
        await database.write(one("update workers set seen = 0"))
        while await database.read(workers.silent(lock.id, 20)):
            await anyio.lowlevel.checkpoint()
    beating.cancel()
    lock.release()


@pytest.mark.behaviour("engine:recovery:unanswered")
async def test_a_claim_whose_answer_was_lost_is_handed_back_and_has_not_failed(
    database: Database, folder: Path
) -> None:
    lock = WorkerLock(folder)
    unreliable = Unreliable(database)
    unreliable.only, unreliable.lost = "_claim", True
    failures: list[int] = []

    async def note(run: Run) -> None:
        failures.append(run.failures)
        await answer_all(run)

    engine = Engine(unreliable, note, worker=lock.id)
    unreliable.failures = 1
    async with engine.watching(lock):
        id = await engine.start()
        await engine.until(id, "chat_response")
        row = await engine.at_rest(id)
    assert unreliable.failed.is_set()
    assert (failures, row.epoch) == ([0], 3)
    lock.release()


@pytest.mark.behaviour("engine:recovery:unanswered")
@pytest.mark.parametrize("lost", [False, True])
async def test_a_failed_run_that_could_not_be_handed_back_is_tried_again(
    database: Database, folder: Path, lost: bool
) -> None:
    lock = WorkerLock(folder)
    unreliable = Unreliable(database)
    unreliable.only, unreliable.lost = "_hand_back", lost
    failures: list[int] = []

    async def broken_once(run: Run) -> None:
        failures.append(run.failures)
        if len(failures) == 1:
            unreliable.failures = 1
            raise ZeroDivisionError("a bug")
        await answer_all(run)

    engine = Engine(unreliable, broken_once, worker=lock.id)
    async with engine.watching(lock):
        id = await engine.start()
        await engine.until(id, "chat_response")
    assert unreliable.failed.is_set()
    assert failures == [0, 1]
    lock.release()


@pytest.mark.behaviour("engine:recovery:lost-hints")
async def test_work_of_another_process_is_found_while_nobody_reads(
    database: Database, other_database: Database, folder: Path
) -> None:
    lock = WorkerLock(folder)
    engine, server = Engine(database, worker=lock.id), Engine(other_database)
    async with engine.watching(lock):
        idle = await engine.start()
        await engine.at_rest(idle)
        id = await server.start()
        assert (await server.row_when(id, lambda row: row.epoch == 1 and row.state == "idle")).failures == 0
    lock.release()


@pytest.mark.behaviour("engine:recovery:lost-hints")
async def test_the_runs_of_a_dead_worker_are_found_while_nobody_reads(database: Database, folder: Path) -> None:
    lock = WorkerLock(folder)
    engine = Engine(database, worker=lock.id)
    id = await owned_by(database, "elsewhere-1", silent_for=0)
    async with engine.watching(lock):
        await database.write(one("update workers set seen = 0 where id = 'elsewhere-1'"))
        await engine.at_rest(id)
    lock.release()


@pytest.mark.behaviour("engine:recovery:survives")
async def test_the_sweep_and_the_heartbeat_outlive_what_breaks_in_them(
    database: Database, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("flux.engine.dispatching.upkeep.PAUSE_SECONDS", 0)
    lock = WorkerLock(folder)
    unreliable = Unreliable(database)
    begun = asyncio.Event()

    async def busy(run: Run) -> None:
        begun.set()
        await asyncio.Event().wait()

    engine = Engine(unreliable, busy, worker=lock.id)
    recovery = engine.recovery(lock, heartbeat=0.01)
    async with engine.working(grace=0):
        await engine.start()
        await begun.wait()
        unreliable.only, unreliable.error, unreliable.failures = "renew", ZeroDivisionError("a bug"), 3
        await database.write(one("update workers set seen = 0"))
        beating = asyncio.create_task(recovery.keep_beating())
        while await database.read(workers.silent(lock.id, 20)):
            await anyio.lowlevel.checkpoint()
        unreliable.only, unreliable.failures = "reap", 2
        id = await owned_by(database, "elsewhere-1", silent_for=30)
        watching = asyncio.create_task(recovery.watch())
        await engine.row_when(id, lambda row: row.worker != "elsewhere-1")
    for task in (beating, watching):
        task.cancel()
    assert unreliable.failures == 0
    assert {"no heartbeat", "cannot tidy up", "no sweep"} & {record.message for record in caplog.records} == {
        "no heartbeat",
        "no sweep",
    }
    lock.release()


@pytest.mark.behaviour("engine:recovery:tidy")
async def test_what_dead_workers_left_behind_is_removed_when_they_own_nothing(database: Database, folder: Path) -> None:
    lock, frozen = WorkerLock(folder), WorkerLock(folder)
    (folder / "dead-1").touch()
    for worker in ("dead-1", "elsewhere-1", frozen.id, lock.id):
        await database.write(workers.beat(workers.Presence(worker)))
    await owned_by(database, "elsewhere-2", silent_for=30)
    await database.write(one("update workers set seen = seen - 30 where id = 'elsewhere-1'"))
    recovery = Engine(database, worker=lock.id).recovery(lock)
    await recovery.tidy()
    left: dict[str, str] = dict(await database.read(one("select id, state from workers")))
    assert left == {
        "dead-1": "gone",
        "elsewhere-1": "active",
        "elsewhere-2": "active",
        frozen.id: "active",
        lock.id: "active",
    }
    await database.write(one("update workers set seen = seen - :s", s=GONE_SECONDS))
    await recovery.tidy()
    left = dict(await database.read(one("select id, state from workers")))
    assert set(left) == {"elsewhere-2", frozen.id, lock.id}  # it owns something, and their locks are held
    assert {path.name for path in folder.iterdir()} == {frozen.id, lock.id}
    for held in (lock, frozen):
        held.release()


@pytest.mark.behaviour("engine:recovery:leaves")
async def test_a_worker_that_leaves_takes_its_row_and_its_file_along(database: Database, folder: Path) -> None:
    lock = WorkerLock(folder)
    engine = Engine(database, worker=lock.id)
    async with engine.working():
        await engine.at_rest(await engine.start())
    assert not await database.read(workers.silent(lock.id, 20))
    await engine.recovery(lock).leave()
    lock.release()
    assert await database.read(one("select id from workers")) == []
    assert list(folder.iterdir()) == []


@pytest.mark.behaviour("engine:recovery:leaves")
async def test_a_worker_leaves_while_the_database_is_away(database: Database, folder: Path) -> None:
    lock = WorkerLock(folder)
    unreliable = Unreliable(database)
    unreliable.failures = 1
    await Engine(unreliable, worker=lock.id).recovery(lock).leave()
    lock.release()


@pytest.mark.behaviour("engine:recovery:tidy")
def test_a_lock_is_made_again_when_its_file_is_tidied_away_before_it_is_held(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = WorkerLock(folder)
    take = fcntl.flock
    removed: list[Path] = []

    def late(file: int, kind: int) -> None:
        if not removed:
            removed.extend(path for path in folder.iterdir() if path.name != other.id)
            removed[0].unlink()
        take(file, kind)

    monkeypatch.setattr(fcntl, "flock", late)
    lock = WorkerLock(folder)
    assert [path.name for path in removed] == [lock.id]
    assert is_alive(folder, lock.id)
    for held in (lock, other):
        held.release()
