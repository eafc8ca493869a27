"""A page in a real browser, and what stands behind it."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flux.client import FluxClient
from flux.surfaces.web.app import create_page
from tests.acceptance.web.browsing import Opened
from tests.integration.server.serving import Served, listening, serving

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

GUARD_MS = 15_000
#: What a browser says where a page breaks a rule of its own policy.
BROKEN = ("Content Security Policy", "TrustedHTML", "Refused to")


@pytest.fixture(scope="session")
def chromium(require_tool: Callable[[str], str]) -> str:
    if find_spec("playwright") is None:
        if os.environ.get("FLUX_TEST_REQUIRE") == "all":
            pytest.fail("playwright is not installed")
        pytest.skip("playwright is not installed")
    return require_tool("chromium")


@pytest.fixture(scope="session")
async def browser(chromium: str) -> AsyncIterator["Browser"]:
    playwright = import_module("playwright.async_api")
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        await browser.close()


Open = Callable[..., Awaitable[Opened]]


@pytest.fixture
async def open_page(browser: "Browser") -> AsyncIterator[Open]:
    """Open the page of an agent behind a client; `beside`: one more tab on what another one shows."""
    faults: list[str] = []
    async with AsyncExitStack() as stack:

        async def new_tab(url: str, width: int, height: int) -> "Page":
            context = await browser.new_context(viewport={"width": width, "height": height})
            stack.push_async_callback(context.close)
            page = await context.new_page()
            page.set_default_timeout(GUARD_MS)
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on("console", lambda said: faults.append(said.text) if any(w in said.text for w in BROKEN) else None)
            page.on("dialog", lambda dialog: faults.append(f"dialog: {dialog.message}"))
            await page.goto(url)
            return page

        async def open_it(
            client: FluxClient | None = None, agent: str = "helper", *, beside: Opened | None = None, path: str = "/",
            width: int = 1200, height: int = 800,
        ) -> Opened:  # fmt: skip
            if beside is not None:
                return Opened(await new_tab(beside.page.url, width, height), beside.url)
            assert client is not None
            url = await stack.enter_async_context(listening(create_page(client, agent)))
            return Opened(await new_tab(url + path, width, height), url)

        yield open_it
    assert faults == []


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    """A server in this process."""
    async with serving(tmp_path, in_process=True) as found:
        yield found
