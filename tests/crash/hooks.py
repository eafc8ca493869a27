"""A process that tells a webhook before it is killed, and the judge of what the receiver has heard."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import msgspec

from flux.agents.webhooks import deliverer
from flux.engine.intake.answers import Decision
from flux.engine.intake.inputs import NewMessage
from flux.errors import WebhookExists
from flux.events import RUN_ENDS, ApprovalRequired
from flux.store.database import LOCAL
from flux.webhooks import verify
from tests.crash import judge
from tests.crash.actors import MODELS, tools
from tests.crash.opening import opened
from tests.crash.stage import Stage

#: Seconds that the receiver gets; a process that was killed held what it sent for twice as long.
TIMEOUT = 0.5


class Receiver:
    """What came on a loopback port: signed bodies by their ids, and the secret of who sends them."""

    def __init__(self) -> None:
        self.heard: dict[str, dict[str, Any]] = {}
        self.wrong: list[str] = []
        self.port = 0

    def hear(self, headers: dict[str, str], body: bytes, secret: str) -> None:
        """One request."""
        verify(secret, headers, body)
        told = msgspec.json.decode(body)
        before = self.heard.setdefault(headers["webhook-id"], told)
        if before != told:
            self.wrong.append(f"{headers['webhook-id']} came with two bodies")


@contextmanager
def receiving(home: Path) -> Iterator[Receiver]:
    """A receiver for the processes on a home, which write the secret there."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.hear(headers, body, (home / "secret").read_text())
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.port = server.server_address[1]
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def hooked(stage: Stage) -> None:
    """An approval and two answers, all told to the webhook; until nothing is left to be told."""
    deliverer.BACKOFFS = (0.2,) * 50  # a busy machine may miss the time-out, and this process lives for seconds
    settings = {"webhook_hosts": ("127.0.0.1",), "webhook_timeout": TIMEOUT}
    fields = {"name": "clerk", "model": "crash/test", "tools": ["look", "note", "pay", "wipe"]}
    async with opened(stage, MODELS["test"](stage), tools(stage), fields, **settings) as process:
        await _create(stage)
        admitted = await process.sessions.start(LOCAL, "clerk", NewMessage("Do it."), instance="desk", key="first")
        await process.sessions.send(LOCAL, admitted.id, NewMessage("Thank you."), key="second")
        while await stage.until_state(admitted.id, "waiting", "idle") == "waiting":
            for question in await process.sessions.interrupts(LOCAL, admitted.id):
                await process.sessions.answer(LOCAL, admitted.id, question.id, Decision("approve"))

        async def all_told() -> bool:
            return not await process.webhooks.deliveries(LOCAL, "audit", state="pending")

        await stage.until(all_told)


async def _create(stage: Stage) -> None:
    """Make the webhook, and write its secret down where the receiver looks; a half-made one is made anew."""
    service, file = stage.process.webhooks, stage.home / "secret"
    url = f"http://127.0.0.1:{(stage.home / 'port').read_text()}/hook"
    try:
        _, secret = await service.create(LOCAL, "audit", url)
    except WebhookExists:
        if file.exists():
            return
        await service.delete(LOCAL, "audit")
        _, secret = await service.create(LOCAL, "audit", url)
    file.write_text(secret)


SCENARIOS: dict[str, Callable[[Stage], Awaitable[None]]] = {"hooked": hooked}


def faults(home: Path, receiver: Receiver, database: str = "") -> list[str]:
    """What is wrong with a home in which `hooked` has come to its end."""
    found = judge.session(home, database)
    wrong = judge.faults(found) + receiver.wrong
    ends = [stored.seq for stored in found.log if isinstance(stored.entry, RUN_ENDS)]
    told = [body["data"]["seq"] for body in receiver.heard.values() if body["type"] != "session.waiting"]
    wrong += [] if sorted(told) == ends else [f"ends at {ends}, told at {sorted(told)}"]
    asked = {row for body in receiver.heard.values() for row in body["data"].get("interrupts", ())}
    open_once = {entry.id for entry in found.entries(ApprovalRequired)}
    wrong += [] if asked == open_once else [f"{open_once} was asked, {asked} was told"]
    return wrong
