"""Servers that die, answers that are lost, connections that break in the middle of a turn."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from flux.client import FluxClient
from tests.acceptance.web.browsing import Gated
from tests.acceptance.web.conftest import Open
from tests.acceptance.web.runner import ANSWER
from tests.integration.server.serving import Served

ROOT = Path(__file__).parents[3]
Start = Callable[[int], str]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[int], tuple[str, subprocess.Popen[str]]]]:
    running: list[subprocess.Popen[str]] = []

    def start_it(port: int) -> tuple[str, subprocess.Popen[str]]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.acceptance.web.runner", str(tmp_path), str(port)],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        running.append(process)
        assert process.stdout is not None
        return process.stdout.readline().strip(), process

    yield start_it
    for process in running:
        process.kill()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()


@pytest.mark.behaviour("web:lost:server")
async def test_a_server_that_is_killed_in_mid_turn_costs_no_word(
    start: Callable[[int], tuple[str, subprocess.Popen[str]]], open_page: Open, tmp_path: Path
) -> None:
    (tmp_path / "hold").touch()
    url, process = start(0)
    async with FluxClient(url) as client:
        tab = await open_page(client)
        await tab.say("go on")
        await tab.shows("One two three", ".answer.growing")
        process.send_signal(signal.SIGKILL)
        process.wait()
        await tab.shows("Reconnecting", ".banner")
        assert await tab.answers() == ["One two three,"]
        await tab.say("and this?")
        (tmp_path / "hold").unlink()
        start(urlsplit(url).port or 0)
        await tab.at_rest(2)
        assert await tab.answers() == [ANSWER, ANSWER]
        assert await tab.said() == ["go on", "and this?"]
        assert await tab.page.locator(".banner").count() == 0
        await tab.page.reload()
        await tab.at_rest(2)
        assert await tab.answers() == [ANSWER, ANSWER]


@pytest.mark.behaviour("web:lost:answer")
async def test_a_message_whose_answer_was_lost_is_taken_once(served: Served, open_page: Open) -> None:
    model = Gated()
    model.gate.set()
    tab = await open_page(served.new_client(), await served.agent(model))
    await tab.say("say begun here")
    await tab.at_rest(1)
    lost = 0

    async def lose(route: object) -> None:
        nonlocal lost
        lost += 1
        if lost > 2:
            await route.continue_()  # type: ignore[attr-defined]
            return
        await route.fetch()  # type: ignore[attr-defined]
        await route.abort()  # type: ignore[attr-defined]

    await tab.page.route("**/messages", lose)
    await tab.say("say once only")
    await tab.at_rest(2)
    await tab.page.locator(".said.waiting").wait_for(state="detached")
    assert await tab.said() == ["say begun here", "say once only"]
    assert await tab.answers() == ["begun here", "once only"]


@pytest.mark.behaviour("web:lost:parser")
async def test_events_are_read_however_the_bytes_are_cut(served: Served, open_page: Open) -> None:
    tab = await open_page(served.new_client(), await served.agent(Gated()))
    cut = """async () => {
      const { Parser } = await import("/static/api.js");
      const bytes = new TextEncoder().encode(
        ": ping\\r\\n\\r\\nid: 1.2.3\\r\\nevent: token\\r\\ndata: {\\"text\\":\\"Grüße 🎉\\"}\\r\\n\\r\\n" +
        "id: 4\\nevent: x\\ndata: [1,\\ndata: 2]\\n\\ndata: 3\\r\\r");
      const found = new Set();
      for (let step = 1; step <= bytes.length; step += 1) {
        const parser = new Parser(), events = [];
        for (let at = 0; at < bytes.length; at += step) events.push(...parser.feed(bytes.slice(at, at + step)));
        found.add(JSON.stringify(events));
      }
      return [...found];
    }"""
    assert await tab.page.evaluate(cut) == [
        '[{"id":"1.2.3","type":"token","data":{"text":"Grüße 🎉"}},{"id":"4","type":"x","data":[1,2]},'
        '{"id":"4","type":"message","data":3}]'
    ]


def token(cursor: str, message: str, attempt: int, text: str) -> dict[str, object]:
    return {"id": cursor, "type": "token", "data": {"message_id": message, "attempt": attempt, "text": text}}


def entry(seq: int, type_: str, **fields: object) -> dict[str, object]:
    return {"id": f"{seq}.1.0", "type": type_, "data": {"seq": seq, **fields}}


BEGUN = [
    entry(1, "user_message", id="u1", parts=[{"type": "text", "text": "hi"}]),
    entry(2, "run_started", run="r", inputs=["u1"]),
]
WHOLE = entry(3, "assistant_message", message_id="m", parts=[{"type": "text", "text": "one two"}])


@pytest.mark.behaviour("web:lost:attempt")
@pytest.mark.parametrize(
    ("events", "shown"),
    [
        ([token("2.1.1", "m", 1, "one "), token("2.1.2", "m", 1, "two")], ["one two"]),
        ([token("2.1.1", "m", 1, "one "), token("2.1.2", "m", 2, "again")], ["again"]),
        ([token("2.1.1", "m", 1, "one "), token("2.2.1", "m", 1, "again")], ["again"]),
        ([token("2.1.1", "m", 1, "one "), token("2.2.1", "other", 1, "again")], ["again"]),
        ([token("2.1.1", "m", 1, "one "), WHOLE, token("2.1.2", "m", 1, "two"), WHOLE], ["one two"]),
        ([*BEGUN, token("2.1.1", "m", 1, "one "), entry(3, "cancelled")], []),
        ([WHOLE, entry(4, "chat_response", content="one two", turn=1)], ["one two"]),
        ([WHOLE, entry(4, "chat_response", content="three", turn=1)], ["one two", "three"]),
    ],
)
async def test_of_several_attempts_the_last_is_shown(
    served: Served, open_page: Open, events: list[dict[str, object]], shown: list[str]
) -> None:
    tab = await open_page(served.new_client(), await served.agent(Gated()))
    fold = """async (events) => {
      const { empty, reduce } = await import("/static/store.js");
      const texts = (state) => state.items.filter((item) => item.kind === "assistant").map((item) => item.text);
      const stepped = events.reduce((state, event) => reduce(state, [event]), empty());
      return [texts(reduce(empty(), events)), texts(stepped)];
    }"""
    assert await tab.page.evaluate(fold, [*BEGUN, *events]) == [shown, shown]


@pytest.mark.behaviour("web:lost:attempt")
async def test_what_joins_a_run_stands_before_its_answer(served: Served, open_page: Open) -> None:
    tab = await open_page(served.new_client(), await served.agent(Gated()))
    steered = entry(3, "user_message", id="u2", mode="steer", parts=[{"type": "text", "text": "and?"}])
    said = entry(4, "assistant_message", message_id="m", inputs=["u2"], parts=[{"type": "text", "text": "one"}])
    fold = """async (events) => {
      const { empty, reduce } = await import("/static/store.js");
      return reduce(empty(), events).items.map((item) => item.text);
    }"""
    events = [*BEGUN, steered, token("3.1.1", "m", 1, "on"), said]
    assert await tab.page.evaluate(fold, events) == ["hi", "and?", "one"]
