"""The audit log: in one transaction with what it tells, page by page, and of one tenant."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from flux.client.transport import InProcessTransport
from flux.errors import InterruptDecided, SecretNotFound
from flux.server.app import create_app
from flux.store import audit
from flux.store.database import LOCAL, Database, Steps, one
from flux.testing import Call, Reply
from flux.tools.function import tool_of
from tests.integration.agents.world import World, opened
from tests.integration.states import ANN, EVE


async def pay() -> str:
    """Pay."""
    return "paid"


def browser(world: World) -> httpx.AsyncClient:
    transport = InProcessTransport(create_app(world.process))
    return httpx.AsyncClient(transport=transport, base_url="http://localhost")


async def acts(http: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    answer = await http.get("/audit", params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


@pytest.mark.behaviour("audit:acts:recorded")
async def test_who_decided_changed_started_and_read_is_noted(tmp_path: Path) -> None:
    async with opened(tmp_path, tools={"pay": tool_of(pay)}) as world, browser(world) as http:
        await http.put("/secrets/token", json={"value": "hunter2-hunter2"})
        await http.get("/secrets/token")
        await http.put("/configs/limit", json={"value": 3})
        await http.delete("/configs/limit")
        assert (await http.delete("/configs/limit")).status_code == 404
        await world.agent([Reply("", calls=(Call("pay"),)), Reply("ok")], tools=["pay"], tool_approvals={"pay": True})
        await world.start("go")
        await world.rest("waiting")
        (question,) = await world.questions()
        decision = f"/sessions/{world.id}/interrupts/{question.id}"
        await http.post(decision, json={"decision": "approve", "always": True})
        await world.rest("idle")
        await http.delete("/secrets/token")
        found = await acts(http, limit=100)
        assert [(act["action"], act["subject"]) for act in reversed(found)] == [
            ("secret.set", "token"),
            ("secret.read", "token"),
            ("config.set", "limit"),
            ("config.remove", "limit"),
            ("agent.create", "agent"),
            ("session.start", world.id),
            ("question.answer", question.id),
            ("secret.remove", "token"),
        ]
        assert {act["principal"] for act in found} == {"local"}
        decided = next(act for act in found if act["action"] == "question.answer")
        assert decided["details"] == {
            "kind": "approval", "decision": "approve", "always": True, "execution": world.id, "tool": "pay",
        }  # fmt: skip
        assert "hunter2" not in str(found)


@pytest.mark.behaviour("audit:acts:recorded")
async def test_what_runs_use_is_noted_once_an_hour(tmp_path: Path) -> None:
    async with opened(tmp_path) as world, browser(world) as http:
        await world.process.secrets.set(LOCAL, "token", "value")
        for _ in range(3):
            await world.process.secrets.requested(LOCAL, ["token"])
        assert [act["action"] for act in await acts(http, action="secret")] == ["secret.use", "secret.set"]
        with pytest.raises(SecretNotFound):
            await world.process.secrets.shown(LOCAL, "none")
        assert await acts(http, subject="none") == []


@pytest.mark.behaviour("audit:acts:transaction")
async def test_what_is_undone_is_not_noted(database: Database) -> None:
    def breaks() -> Steps[None]:
        yield from audit.record(ANN, "agent.create", "x")
        raise InterruptDecided

    with pytest.raises(InterruptDecided):
        await database.write(breaks())
    assert await database.read(audit.page(ANN)) == []


@pytest.mark.behaviour("audit:list:filtered")
async def test_acts_are_filtered_and_paged(database: Database) -> None:
    for number in range(7):
        await database.write(audit.record(ANN, "secret.read" if number % 2 else "secrets.other", f"s{number % 3}"))
    await database.write(audit.record(EVE, "secret.read", "hers"))
    everything = await database.read(audit.page(ANN))
    assert len(everything) == 7
    assert [act.action for act in await database.read(audit.page(ANN, action="secret"))] == ["secret.read"] * 3
    assert len(await database.read(audit.page(ANN, action="secret.read", subject="s1"))) == 1
    assert await database.read(audit.page(ANN, principal="nobody")) == []
    assert await database.read(audit.page(ANN, since=everything[0].at + 1)) == []
    paged, place = [], None
    while batch := await database.read(audit.page(ANN, before=place, limit=3)):
        paged += batch
        place = (batch[-1].at, batch[-1].id)
    assert paged == everything


@pytest.mark.behaviour("audit:list:filtered")
async def test_pages_over_http(tmp_path: Path) -> None:
    async with opened(tmp_path) as world, browser(world) as http:
        for number in range(3):
            await world.process.configs.set(LOCAL, f"c{number}", 1)
        first = (await http.get("/audit", params={"limit": 2})).json()
        rest = (await http.get("/audit", params={"limit": 2, "cursor": first["next_cursor"]})).json()
        assert [act["subject"] for act in first["items"] + rest["items"]] == ["c2", "c1", "c0"]
        assert rest["next_cursor"] is None
        assert (await http.get("/audit", params={"limit": 0})).status_code == 400
        assert await world.process.database.read(one("select count(*) from audit")) == [(3,)]
