"""The page: what web mode adds to a turn, a thousand readers of it, and how it feels in a real browser."""

from __future__ import annotations

import asyncio
import importlib
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from flux.client import FluxClient
from flux.messages import TextDelta
from flux.models.base import ModelEvent, ModelRequest
from flux.models.scripted import Reply, ScriptedModel
from flux.surfaces.web.app import create_page
from tests.benchmarks.children import FLUX, Child, flux_environment, flux_server, serving
from tests.benchmarks.frame import Row, Size, median, ms
from tests.benchmarks.readers import events, reading
from tests.benchmarks.talk import (
    AGENT,
    TOKEN,
    Line,
    Turn,
    at_once,
    lines,
    lines_needed,
    make_agent,
    one_by_one,
    sessions,
)
from tests.benchmarks.turn import directly, tokens_row, turn_rows
from tests.integration.server.serving import listening
from tests.integration.server.serving import serving as a_server

NATIVE = "the server's own route"
#: What the browser is shown: so much text, and then so many pieces a second.
CHARACTERS, PIECES_PER_SECOND = 40_000, 200
PARAGRAPH = "Some *words* of an answer, with `code` and a [link](https://example.com/), as they come.\n\n"
#: Frames of the page while pieces come, by its own clock.
FRAMES = """seconds => new Promise(done => {
  const times = [];
  const tick = now => {
    times.push(now);
    if (now - times[0] < seconds * 1000) requestAnimationFrame(tick);
    else done(times.slice(1).map((time, n) => time - times[n]));
  };
  requestAnimationFrame(tick);
})"""


class PageLine(Line):
    """Two connections to the page, as a browser has them: one for what is said, and one for what happens."""

    path = "/api/sessions/{}/messages"

    def __init__(self, url: str, session: str) -> None:
        super().__init__(url, session)
        self._request = self._request.replace(b"Accept: text/event-stream\r\n", b"")
        self._events = Line(url, session)
        self._events._request = events(f"/api/sessions/{session}/events")
        self._listening = False

    async def say(self) -> Turn:
        """One turn; begins to listen first if it must."""
        happens, asks = await self._events._connected()
        if not self._listening:
            self._listening = True
            asks.write(self._events._request)
            await happens.readuntil(b"event: session_started")
        reader, writer = await self._connected()
        began = time.perf_counter()
        writer.write(self._request)
        accepted = asyncio.ensure_future(self._accepted(reader, began))
        first, data = 0.0, b""
        while b"event: chat_response\n" not in data:
            piece = await happens.read(1 << 16)
            if not piece:
                raise ConnectionError(f"the page hung up after {data[-200:]!r}")
            data += piece
            if not first and TOKEN in data:
                first = time.perf_counter() - began
        return Turn(await accepted, first, time.perf_counter() - began, data.count(TOKEN))

    async def _accepted(self, reader: asyncio.StreamReader, began: float) -> float:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.split()[1]))
        return time.perf_counter() - began

    def leave(self) -> None:
        """Hang up both."""
        self.close()
        self._events.close()


async def measure(size: Size, home: Path) -> list[Row]:
    """Turns, readers, and a browser."""
    return [*await _turns(size, home / "turns"), *await _readers(size, home / "readers"), *await _browser(size, home)]


async def _turns(size: Size, home: Path) -> list[Row]:
    home.mkdir(parents=True)
    direct = await directly(size)
    async with flux_server(home) as server, FluxClient(server.url) as client:
        await make_agent(client)
        async with flux_page(home, server.url) as page:

            def cpu() -> float:
                return page.cpu() + server.cpu()

            with page_lines(page.url, [one.id for one in await sessions(client, lines_needed(size.turns))]) as opened:
                found = await one_by_one([line.say for line in opened], size.turns, size.warm_up, cpu)
            with lines(server.url, [one.id for one in await sessions(client, size.sessions)]) as native:
                beside = await at_once([line.say for line in native], size.rounds, server.cpu)
            with page_lines(page.url, [one.id for one in await sessions(client, size.sessions)]) as opened:
                turns, took = await at_once([line.say for line in opened], size.rounds, cpu)
    name = f"{size.sessions} through the page"
    return [
        *turn_rows("the page", found, direct),
        Row(
            name=f"{name}: CPU per turn", figure=ms(took.cpu / len(turns)), unit="ms",
            limit=ms(beside[1].cpu / len(beside[0])), limit_is=NATIVE, target=5.0,
        ),
        tokens_row(name, turns),
    ]  # fmt: skip


async def _readers(size: Size, home: Path) -> list[Row]:
    """Open streams of the page; a message is one event, since the server runs nothing."""
    home.mkdir(parents=True)
    async with flux_server(home, "--no-worker") as server, FluxClient(server.url) as client:
        await make_agent(client)
        (session,) = await sessions(client, 1)
        async with flux_page(home, server.url) as page:
            empty = page.rss()
            request = events(f"/api/sessions/{session.id}/events")
            async with reading(page, request, size.readers) as readers:
                before, seconds = page.cpu(), []
                for n in range(size.events):
                    readers.expect(f"message-{n}-".encode())
                    began = time.perf_counter()
                    await session.post(f"message-{n}-")
                    await readers.complete()
                    seconds.append(time.perf_counter() - began)
                full, spent = page.rss(), page.cpu() - before
    name = f"{size.readers:,} readers of the page"
    return [
        Row(name=f"{name}: memory", figure=full, unit="MB", limit=empty, limit_is="before them", target=120.0),
        Row(name=f"{name}: one event to all, median", figure=ms(median(seconds)), unit="ms"),
        Row(name=f"{name}: CPU per event", figure=ms(spent / size.events), unit="ms"),
    ]


class Paced(ScriptedModel):
    """Says the bulk of a text at once and its rest at an even pace, until it is stopped."""

    def __init__(self) -> None:
        super().__init__([Reply("")])
        self.bulk = asyncio.Event()

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """One endless answer."""
        yield TextDelta(PARAGRAPH * (CHARACTERS // len(PARAGRAPH)))
        self.bulk.set()
        words, due = PARAGRAPH.replace("\n\n", " \n\n").split(" "), time.perf_counter()
        while True:
            for word in words:
                due += 1 / PIECES_PER_SECOND
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                yield TextDelta(word + " ")


async def _browser(size: Size, home: Path) -> list[Row]:
    async with chromium() as browser:
        if isinstance(browser, str):
            return [Row(name="in a browser", figure=None, unit="s", note=browser)]
        async with a_server(home / "browser", in_process=True) as served:
            model = Paced()
            agent = await served.agent(model)
            session = await served.client.start_session(agent)
            async with listening(create_page(served.client, agent)) as url:
                cold = [await _usable(browser, url) for _ in range(size.starts)]
                page = await (await browser.new_context()).new_page()
                await page.goto(f"{url}/#/s/{session.id}")
                await session.post("Go")
                await model.bulk.wait()
                await page.wait_for_function("n => document.body.innerText.length > n", arg=CHARACTERS // 2)
                found = await _streaming(page, size.page_seconds)
                await session.cancel()
    return [
        Row(name="in Chromium: page usable, cold, median", figure=median(cold), unit="s", target=1.0),
        *found,
    ]


async def _usable(browser: Any, url: str) -> float:
    """Seconds from the address to a field that takes a message, with nothing in the cache."""
    context = await browser.new_context()
    page = await context.new_page()
    began = time.perf_counter()
    await page.goto(url, wait_until="commit")
    await page.wait_for_selector("textarea:enabled")
    seconds = time.perf_counter() - began
    await context.close()
    return seconds


async def _streaming(page: Any, seconds: float) -> list[Row]:
    """Frames while the text grows, and how busy the page's thread is meanwhile, by the devtools protocol."""
    devtools = await page.context.new_cdp_session(page)
    await devtools.send("Performance.enable")
    before = await _metrics(devtools)
    gaps: Sequence[float] = await page.evaluate(FRAMES, seconds)
    after = await _metrics(devtools)
    took = after["Timestamp"] - before["Timestamp"]
    busy = (after["TaskDuration"] - before["TaskDuration"]) / took
    name = f"in Chromium, {PIECES_PER_SECOND} tokens/s at {CHARACTERS // 1000} KB"
    late = sum(gap > 1000 / 60 * 1.5 for gap in gaps)
    return [
        Row(
            name=f"{name}: frames per second", figure=1000 * len(gaps) / sum(gaps), unit="/s", target=58, at_least=True
        ),
        Row(name=f"{name}: frames that came late", figure=100 * late / len(gaps), unit="of 100"),
        Row(name=f"{name}: longest frame", figure=max(gaps), unit="ms"),
        Row(name=f"{name}: the page's thread, busy", figure=ms(busy), unit="ms/s"),
    ]  # fmt: skip


async def _metrics(devtools: Any) -> dict[str, float]:
    told = await devtools.send("Performance.getMetrics")
    return {metric["name"]: metric["value"] for metric in told["metrics"]}


@asynccontextmanager
async def chromium() -> AsyncIterator[Any]:
    """A browser, or what keeps it from running."""
    program = shutil.which("chromium")
    try:
        playwright = importlib.import_module("playwright.async_api")
    except ImportError:
        program = None
    if program is None:
        yield "there is no chromium, or no playwright"
        return
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        await browser.close()


def flux_page(home: Path, server: str) -> AbstractAsyncContextManager[Child]:
    """`flux agent start --mode web` on a free port."""
    command = [FLUX, "agent", "start", AGENT, "--mode", "web", "--port", "0", "--server", server]
    return serving(*command, environment=flux_environment(home))


@contextmanager
def page_lines(url: str, ids: Sequence[str]) -> Iterator[list[PageLine]]:
    """A line to each session, hung up at the end."""
    with ExitStack() as stack:
        opened = [PageLine(url, id) for id in ids]
        for line in opened:
            stack.callback(line.leave)
        yield opened
