"""Deliveries as rows: taken by one process at a time, settled by who took them last."""

import asyncio

import pytest

from flux.store import webhooks
from flux.store.database import Database, one
from flux.store.webhooks import Delivery
from tests.integration.states import ANN, Sessions

LEASE = 60.0


async def written(database: Database, count: int) -> None:
    """So many deliveries that are due."""
    id = await Sessions(database).running()
    await database.write(webhooks.create(ANN, "w1", "audit", "https://example.org", "run.failed", None))
    for n in range(count):
        assert await database.write(webhooks.note(ANN, id, "run.failed", str(n), {"n": n})) == 1


async def taken(database: Database, limit: int = 10) -> list[Delivery]:
    return [delivery for delivery, _ in await database.write(webhooks.claim(limit, LEASE))]


@pytest.mark.behaviour("webhooks:claimed:once")
async def test_of_two_processes_one_takes_a_delivery(database: Database, other_database: Database) -> None:
    await written(database, 30)
    ids: list[str] = []
    while (await database.single(webhooks.outlook(10)))[0]:  # who is second may find nothing, and looks again
        found = await asyncio.gather(*(taken(one) for one in (database, other_database) * 2))
        ids += [delivery.id for some in found for delivery in some]
    assert len(ids) == len(set(ids)) == 30
    _, seconds = await database.single(webhooks.outlook(10))
    assert seconds == pytest.approx(LEASE, abs=10)


@pytest.mark.behaviour("webhooks:claimed:once")
async def test_what_a_process_took_and_did_not_settle_is_due_again(database: Database) -> None:
    await written(database, 1)
    (first,) = await taken(database)
    assert await taken(database) == []
    await database.write(one("update webhook_deliveries set due = 0.0"))
    (second,) = await taken(database)
    assert (second.id, second.attempts) == (first.id, 2)
    await database.write(webhooks.settle(first, "failed", status=500, error="late"))  # it was given up meanwhile
    await database.write(webhooks.settle(second, "delivered", status=204, error=None))
    (found,) = await database.read(webhooks.deliveries(ANN, "audit"))
    assert (found.state, found.status, found.error) == ("delivered", 204, None)


@pytest.mark.behaviour("webhooks:events:told")
async def test_the_same_happening_is_written_once_and_children_are_not_told(database: Database) -> None:
    await written(database, 1)
    (found,) = await database.read(webhooks.deliveries(ANN, "audit"))
    await database.write(webhooks.note(ANN, found.execution_id, "run.failed", "0", {"n": 0}))
    await database.write(one("update executions set driver = 'another'"))
    assert await database.write(webhooks.note(ANN, found.execution_id, "run.failed", "1", {})) == 0
    assert await database.read(webhooks.deliveries(ANN, "audit")) == [found]
