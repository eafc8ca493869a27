"""/webhooks over HTTP and through the client."""

import pytest

from flux.client import WebhooksClient
from flux.errors import InvalidInput, WebhookExists, WebhookNotFound
from flux.store.database import LOCAL
from flux.store.webhooks import note
from tests.integration.server.models import says
from tests.integration.server.serving import Served

URL = "https://example.org/hook"


@pytest.mark.behaviour("webhooks:managed")
async def test_webhooks_are_managed(served: Served) -> None:
    webhooks = WebhooksClient(served.client)
    names = [f"{'s' if served.in_process else 't'}{n}" for n in range(3)]
    for name in names:
        made = await webhooks.create(name, URL, ["run.failed", "run.finished"], agent="nobody")
        assert made["secret"].startswith("whsec_")
    shown = await webhooks.get(names[0])
    assert "secret" not in shown
    assert (shown["events"], shown["agent"], shown["url"]) == (["run.finished", "run.failed"], "nobody", URL)
    page = (await served.http.get("/webhooks", params={"limit": 2})).json()
    assert len(page["items"]) == 2
    assert page["next_cursor"]
    assert {row["name"] for row in [row async for row in webhooks.list()]} >= set(names)
    with pytest.raises(WebhookExists):
        await webhooks.create(names[0], URL)
    with pytest.raises(InvalidInput, match="url: "):
        await webhooks.create("local", "http://127.0.0.1:1/")
    response = await served.http.post("/webhooks", json={"name": "x", "url": URL, "event": []})
    assert (response.status_code, "did you mean 'events'" in response.text) == (400, True)
    for name in names:
        await webhooks.delete(name)
        with pytest.raises(WebhookNotFound):
            await webhooks.get(name)


@pytest.mark.behaviour("webhooks:managed")
async def test_deliveries_are_listed_page_by_page(in_memory: Served) -> None:
    webhooks = WebhooksClient(in_memory.client)
    await webhooks.create("pages", "https://127.0.0.1.invalid/hook")
    session = await in_memory.client.start_session(await in_memory.agent(says("hi")))
    for n in range(5):
        await in_memory.process.database.write(note(LOCAL, session.id, "run.failed", str(n), {"n": n}))
    found = [row async for row in webhooks.deliveries("pages")]
    assert [row["body"]["data"]["n"] for row in found] == [4, 3, 2, 1, 0]
    page = (await in_memory.http.get("/webhooks/pages/deliveries", params={"limit": 2, "state": "pending"})).json()
    assert [row["id"] for row in page["items"]] == [row["id"] for row in found[:2]]
    again = await webhooks.redeliver("pages", found[0]["id"])
    assert (again["state"], again["session"]) == ("pending", session.id)
    with pytest.raises(WebhookNotFound):
        await webhooks.redeliver("pages", "msg_x")
