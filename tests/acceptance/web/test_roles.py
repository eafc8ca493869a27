"""The example of roles in a browser: a plan is approved there, and one of its actions."""

import sqlite3
import sys
from importlib import import_module
from pathlib import Path

import pytest

from flux.client import FluxClient
from flux.client.transport import InProcessTransport
from flux.server.app import create_app
from flux.settings import Settings
from tests.acceptance.web.conftest import Open

EXAMPLE = Path(__file__).parents[3] / "examples" / "inventory"


@pytest.mark.behaviour("examples:inventory:browser")
async def test_the_plan_of_the_shop_is_approved_in_a_browser(
    tmp_path: Path, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.setenv("INVENTORY_DB", str(tmp_path / "shop.db"))
    runtime = import_module("inventory").runtime
    async with runtime.on(settings=Settings(home=tmp_path), workspace=tmp_path) as shop:
        transport = InProcessTransport(create_app(await shop.process(), operator=True))
        async with FluxClient("http://localhost", transport=transport) as client:
            tab = await open_page(client, "clerk")
            await tab.say("Look after the stock.")
            question = tab.page.locator(".question")
            await question.filter(has_text="Order by order_item").first.wait_for()
            assert await question.get_by_role("button", name="Edit").count() == 0
            await question.get_by_role("button", name="Approve", exact=True).click()
            await tab.shows("remove_item", ".question")
            await tab.page.locator(".question").get_by_role("button", name="Reject").first.click()
            await tab.page.keyboard.press("Enter")
            await tab.shows("This is what came of it")
    sys.modules.pop("inventory", None)
    with sqlite3.connect(tmp_path / "shop.db") as found:
        assert found.execute("select sku from orders").fetchall() == [("pear",)]
        assert found.execute("select count(*) from stock").fetchone() == (3,)
    found.close()
