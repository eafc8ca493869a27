"""A claim by one statement: what it takes, and what it leaves to the claim that looks first."""

from collections.abc import Awaitable, Callable

import pytest

from flux.engine.dispatching.pools import DEFAULT
from flux.store import ownership, workers
from flux.store.database import Database, one
from flux.store.executions import Execution
from flux.store.workers import Presence
from tests.integration.states import Sessions

WORKER = "w-plain"


async def claim(database: Database, id: str, pool: str = DEFAULT) -> Execution | None:
    return await database.write_one(ownership.claim_plain(id, WORKER, (pool,)))


@pytest.fixture
async def scheduled(database: Database) -> Callable[[], Awaitable[str]]:
    """Makes what may be claimed, by a worker that was seen just now."""
    sessions = Sessions(database)
    await database.write(workers.beat(Presence(id=WORKER)))
    return sessions.scheduled


@pytest.mark.behaviour("claims:plain:one-winner")
async def test_it_takes_what_is_due_once(database: Database, scheduled: Callable[[], Awaitable[str]]) -> None:
    id = await scheduled()
    taken = await claim(database, id)
    assert taken is not None
    assert (taken.id, taken.state, taken.worker, taken.epoch) == (id, "running", WORKER, 1)
    assert await claim(database, id) is None


@pytest.mark.behaviour("claims:plain:left")
async def test_it_leaves_what_needs_a_look(database: Database, scheduled: Callable[[], Awaitable[str]]) -> None:
    id = await scheduled()
    assert await claim(database, id, pool="elsewhere") is None
    for change in ("requests = '{\"cpu\": 64}'", "due = due + 100", f"avoid = '|{WORKER}|'"):
        other = await scheduled()
        await database.write(one(f"update executions set {change} where id = :id", id=other))
        assert await claim(database, other) is None
    await database.write(one("update workers set seen = seen - 1 where id = :id", id=WORKER))
    assert await claim(database, id) is None
    await database.write(workers.beat(Presence(id=WORKER)))
    assert await claim(database, id) is not None
