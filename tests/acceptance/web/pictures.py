"""The pictures of the page in docs/images: `python -m tests.acceptance.web.pictures` makes them anew."""

import asyncio
import shutil
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from flux.surfaces.web.app import create_page
from tests.acceptance.web.made_up import MadeUp, answer, run
from tests.integration.server.serving import listening

IMAGES = Path(__file__).parents[3] / "docs" / "images"
TITLE = "Why is the orders page slow?"
COMMAND = {"command": "pytest tests/orders -q && git diff --stat"}
ANSWER = '''The slow part is one query per order. One join and an index do the same work:

```python
def open_orders(db: Database, customer: int) -> list[Order]:
    """Orders of a customer that are not paid, newest first."""
    rows = db.execute(
        "select o.id, o.total, count(i.id) as items from orders o "
        "join items i on i.order_id = o.id "
        "where o.customer = :customer and not o.paid group by o.id",
        {"customer": customer},
    )
    return [Order(*row) for row in rows]  # was 1 + n queries
```

| measured | before | after |
|---|---|---|
| queries per page | 141 | **1** |
| median | 480 ms | **12 ms** |

I will run the tests before I change anything else.'''
LIST = (
    (TITLE, "waiting", 20),
    ("Rename Basket to Cart everywhere", "running", 300),
    ("Add a test for empty carts", "idle", 2_600),
    ("Explain the retry logic in client.py", "idle", 9_000),
    ("Which dependencies are outdated?", "idle", 90_000),
    ("Write release notes for 2.4", "ended", 260_000),
)
#: Name: width, height, colours, pixels per point.
PICTURES = {"light": (1280, 860, "light", 1.0), "dark": (1280, 860, "dark", 1.0), "phone": (390, 780, "light", 1.5)}


class Shop(MadeUp):
    """The session of the pictures."""

    def row(self) -> dict[str, Any]:
        usage = {"total": 9_180, "cost": 0.0393}
        return super().row() | {"title": TITLE, "state": "waiting", "usage": usage}


def shop() -> Shop:
    """One question, one answer, and a call that waits."""
    call = {"id": "c1", "name": "shell", "args": COMMAND}
    asked = {
        "type": "approval_required", "id": "q1", "call": "c1", "agent": "coder", "tool": "shell", "args": COMMAND,
        "digest": "", "channel": "tool", "reason": "tool_approvals: shell",
    }  # fmt: skip
    log = run(1, {**answer("m1", ANSWER), "calls": [call]}, asked, end=False)
    log[0]["parts"][0]["text"] = TITLE
    server = Shop(log)
    server.can_fork = True
    server.rows = [
        {"id": f"s{n}" if n else "made-up", "title": title, "state": state, "waiting_for": "approval",
         "updated_at": time.time() - ago}
        for n, (title, state, ago) in enumerate(LIST)
    ]  # fmt: skip
    return server


async def main() -> None:
    """Write the files."""
    playwright = import_module("playwright.async_api")
    async with playwright.async_playwright() as driver, listening(create_page(shop().client(), "coder")) as url:
        browser = await driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, (width, height, scheme, scale) in PICTURES.items():
            context = await browser.new_context(
                viewport={"width": width, "height": height}, color_scheme=scheme, device_scale_factor=scale
            )
            page = await context.new_page()
            await page.goto(f"{url}/#/s/made-up")
            await page.locator(".question").wait_for()
            await page.locator(".sidebar li").last.wait_for(state="attached")
            await page.screenshot(path=IMAGES / f"web-{name}.png", animations="disabled")
            await context.close()
        await browser.close()


if __name__ == "__main__":
    asyncio.run(main())
