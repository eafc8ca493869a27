"""The routes of workers."""

from typing import Any

import anyio
import pytest

import flux
from flux.store import ownership, workers
from flux.store.workers import Presence
from tests.integration.server.serving import Served
from tests.integration.server.test_sessions import call, refused


async def own_row(served: Served) -> dict[str, Any]:
    """The worker of the server; it signs on while the server serves already."""
    with anyio.fail_after(20):
        while True:
            for row in (await call(served, "GET", "/workers?limit=200", 200))["items"]:
                if row["id"] == served.process.worker_id:
                    return dict(row)


@pytest.mark.behaviour("scale:workers:listed")
async def test_the_worker_inside_a_server_is_listed_and_shown(stored: Served) -> None:
    row = await own_row(stored)
    assert (row["name"], row["version"], row["state"]) == (stored.process.who.name, flux.__version__, "active")
    assert (row["labels"], row["concurrency"]) == ({}, stored.process.settings.concurrency)
    assert set(row["resources"]) == {"cpu", "memory", "gpu"}
    shown = await call(stored, "GET", f"/workers/{row['name']}", 200)
    assert "msgspec" in shown["resources"].pop("packages")
    assert shown | {"seen_at": 0, "running": 0} == row | {"seen_at": 0, "running": 0}


@pytest.mark.behaviour("scale:workers:listed")
async def test_workers_are_listed_page_by_page(in_memory: Served) -> None:
    for n in range(5):
        await in_memory.process.database.write(workers.beat(Presence(f"id-{n}", f"paged-{n}")))
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = await call(in_memory, "GET", f"/workers?limit=2&cursor={cursor}", 200)
        assert len(page["items"]) <= 2
        found += [row["name"] for row in page["items"]]
        cursor = page["next_cursor"]
    assert [name for name in found if name.startswith("paged-")] == [f"paged-{n}" for n in range(5)]
    assert found == sorted(found)
    assert await refused(in_memory, "GET", "/workers?cursor=nonsense", 400) == "invalid_input"


@pytest.mark.behaviour("scale:workers:drain")
async def test_a_worker_elsewhere_is_asked_to_drain(in_memory: Served) -> None:
    await in_memory.process.database.write(workers.beat(Presence("id-far", "far")))
    asked = await call(in_memory, "POST", "/workers/far/drain", 200)
    assert (asked["name"], asked["state"], asked["running"]) == ("far", "draining", 0)
    await in_memory.process.database.write(workers.beat(Presence("id-far", "far")))
    assert (await in_memory.process.database.read(ownership.look(("default",), "id-far", 20))).draining
    assert (await call(in_memory, "POST", "/workers/far/drain", 200))["state"] == "draining"
    assert await refused(in_memory, "POST", "/workers/nobody/drain", 404) == "worker_not_found"
    assert await refused(in_memory, "GET", "/workers/nobody", 404) == "worker_not_found"
