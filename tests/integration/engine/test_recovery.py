"""Who is dead, who is only silent, and who is left alone."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from flux.engine.recovery import Recovery, WorkerLock, is_alive
from flux.engine.run import Run
from flux.store import workers
from flux.store.database import Database, one
from tests.integration.engine.engines import Engine
from tests.integration.states import Sessions

HOLD_A_LOCK = """
import pathlib, sys, time
from flux.engine.recovery import WorkerLock
lock = WorkerLock(pathlib.Path(sys.argv[1]))
print(lock.id, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "workers"


def recovery_of(engine: Engine, lock: WorkerLock) -> Recovery:
    return Recovery(engine.database, engine.dispatch, lock, heartbeat=5, dead_after=20)


async def owned_by(database: Database, worker: str, *, silent_for: float = 0) -> str:
    """A session that a worker runs, which was last heard of some seconds ago."""
    sessions = Sessions(database)
    id = await sessions.scheduled()
    await sessions.claim(id, worker)
    await database.write(workers.beat(worker))
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
    recovery = recovery_of(engine, lock)
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
    assert await recovery_of(engine, lock).sweep() == 1
    row = await engine.row(id)
    assert (row.state, row.epoch, row.failures, row.worker) == ("scheduled", 2, 1, None)
    frozen.release()
    lock.release()


@pytest.mark.behaviour("engine:recovery:alive")
async def test_a_worker_that_lives_is_left_alone(database: Database, folder: Path) -> None:
    alive, lock = WorkerLock(folder), WorkerLock(folder)
    id = await owned_by(database, alive.id, silent_for=10)
    engine = Engine(database)
    assert await recovery_of(engine, lock).sweep() == 0
    assert ((await engine.row(id)).state, (await engine.row(id)).worker) == ("running", alive.id)
    alive.release()
    lock.release()


@pytest.mark.behaviour("engine:recovery:alive")
async def test_a_worker_is_alive_from_its_first_claim(
    database: Database, other_database: Database, folder: Path
) -> None:
    """It has had no time yet for a heartbeat of its own, and was silent before, having nothing to do."""
    alive, lock = WorkerLock(folder), WorkerLock(folder)
    await database.write(workers.beat(alive.id))
    await database.write(one("update workers set seen = seen - 1000"))
    begun = asyncio.Event()

    async def busy(run: Run) -> None:
        begun.set()
        await asyncio.Event().wait()

    engine = Engine(database, busy, worker=alive.id)
    async with engine.working(grace=0):
        await engine.start()
        await begun.wait()
        assert await recovery_of(Engine(other_database), lock).sweep() == 0
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
    assert await recovery_of(Engine(database), lock).sweep() == taken
    lock.release()


@pytest.mark.behaviour("engine:recovery:no-lock-file")
async def test_a_worker_nobody_ever_heard_of_is_dead(database: Database, folder: Path) -> None:
    lock = WorkerLock(folder)
    sessions = Sessions(database)
    await sessions.claim(await sessions.scheduled(), "ghost")
    assert await recovery_of(Engine(database), lock).sweep() == 1
    lock.release()


@pytest.mark.behaviour("engine:recovery:not-oneself")
async def test_nobody_takes_over_from_oneself(database: Database, folder: Path) -> None:
    lock = WorkerLock(folder)
    await owned_by(database, lock.id, silent_for=1000)
    assert await recovery_of(Engine(database), lock).sweep() == 0
    lock.release()


@pytest.mark.behaviour("engine:recovery:heartbeat")
async def test_a_busy_worker_is_heard_and_an_idle_one_writes_nothing(database: Database, folder: Path) -> None:
    lock = WorkerLock(folder)
    begun = asyncio.Event()

    async def busy(run: Run) -> None:
        begun.set()
        await asyncio.Event().wait()

    engine = Engine(database, busy, worker=lock.id)
    recovery = Recovery(database, engine.dispatch, lock, heartbeat=0.01, dead_after=20)
    beating = asyncio.create_task(recovery.beat_while_busy(engine.runner))
    async with engine.working(grace=0):
        assert await database.read(one("select id from workers")) == []
        await engine.start()
        await begun.wait()
        await database.write(one("update workers set seen = 0"))
        while await database.read(workers.silent(lock.id, 20)):
            await anyio.lowlevel.checkpoint()
    beating.cancel()
    lock.release()
