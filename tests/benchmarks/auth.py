"""What it costs to ask who calls: the same requests of a server with auth off, and with a key or a token."""

from __future__ import annotations

import http.client
import json
import statistics
import subprocess
import time
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

from flux.engine.service.identity import Identities
from flux.engine.service.principals import Principals
from flux.permissions import BUILT_IN, Permissions
from flux.server.oidc import Tokens
from flux.settings import Oidc
from flux.store.database import LOCAL
from flux.store.opening import open_database
from tests.benchmarks.children import FLUX, Child, flux_environment, flux_server
from tests.benchmarks.frame import Row, Size, ms
from tests.integration.auth.issuer import AUDIENCE, ISSUER, Issuer

#: One caller asks for all that the server can do.
KEYS = {"FLUX_SECURITY__AUTH__API_KEYS__ENABLED": "true", "FLUX_MAX_REQUESTS_PER_SECOND": "0"}
#: Short rounds of both servers, each first in turn. Of their times the middle one counts: what else the machine does
#: makes some of them slower, and says nothing about either server.
ROUNDS = 15


async def measure(size: Size, home: Path) -> list[Row]:
    """Requests per second of processor time, off and on, and the parts of it."""
    homes = [home / "off", home / "on"]
    for one in homes:
        one.mkdir()
    async with AsyncExitStack() as stack:
        off = await stack.enter_async_context(flux_server(homes[0]))
        on = await stack.enter_async_context(flux_server(homes[1], **KEYS))
        callers = [_Caller(off, None), _Caller(on, _admin_key(homes[1]))]
        rows = [_row(what, callers, size) for what in ("GET /sessions/ID", "POST a message")]
        for caller in callers:
            caller.close()
    return [*rows, _check_row(size), await _token_row(size, home)]


def _row(what: str, callers: list[_Caller], size: Size) -> Row:
    for caller in callers:
        caller.prepare()
        caller.calls(what, size.warm_up)
    count, used = max(1, size.callers // 2), {caller: list[float]() for caller in callers}
    for turn in range(ROUNDS):
        for caller in callers[:: 1 if turn % 2 else -1]:
            used[caller].append(caller.calls(what, count))
    off, on = (count / statistics.median(used[caller]) for caller in callers)
    return Row(
        name=f"{what}: requests with auth on for one without", figure=on / off, unit="", target=0.9, at_least=True,
        note=f"{on:,.0f} and {off:,.0f} per second of processor time",
    )  # fmt: skip


class _Caller:
    """A connection to a server."""

    def __init__(self, server: Child, key: str | None) -> None:
        self._server = server
        self._line = http.client.HTTPConnection(urlsplit(server.url).netloc)
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._id = ""

    def prepare(self) -> None:
        """A session whose runs cost nothing: it has ended, or messages wait behind a question."""
        if not self._id:
            self._call("POST", "/agents", {"name": "bench", "model": "scripted/echo"})
            self._id = self._call("POST", "/sessions", {"agent": "bench"})["id"]

    def close(self) -> None:
        """Hang up."""
        self._line.close()

    def calls(self, what: str, count: int) -> float:
        """Processor seconds of the server for so many requests."""
        before = self._server.cpu()
        for _ in range(count):
            if what.startswith("GET"):
                self._call("GET", f"/sessions/{self._id}")
            else:
                self._call("POST", f"/sessions/{self._id}/messages", {"message": "hi"})
        return self._server.cpu() - before

    def _call(self, method: str, path: str, body: object = None) -> dict[str, str]:
        self._line.request(method, path, json.dumps(body) if body is not None else None, self._headers)
        answer = self._line.getresponse()
        content: dict[str, str] = json.loads(answer.read())
        assert answer.status < 300, content
        return content


def _admin_key(home: Path) -> str:
    made = subprocess.run(
        [FLUX, "server", "admin-key"], env=flux_environment(home, **KEYS), capture_output=True, text=True, check=True
    )
    return made.stdout.strip()


def _check_row(size: Size) -> Row:
    many = Permissions([*BUILT_IN["operator"], *(f"agent:helper{n}:*" for n in range(30))])
    began = time.perf_counter()
    for n in range(size.tasks):
        many.allow(f"agent:other{n}:start")
    taken = (time.perf_counter() - began) / size.tasks
    return Row(name="a permission that was not asked about before, of 40", figure=1e6 * taken, unit="µs", target=20.0)


async def _token_row(size: Size, home: Path) -> Row:

    issuer = Issuer()
    database = await open_database(f"sqlite:///{home / 'tokens.db'}")
    identities = Identities(database, enabled=True)
    await Principals(database, identities).create(LOCAL, "ann", "user", ["viewer"])
    tokens = Tokens(identities, Oidc(enabled=True, issuer=ISSUER, audience=AUDIENCE), issuer.transport())
    token = issuer.token()
    await tokens.caller(token)
    began = time.perf_counter()
    for _ in range(size.tasks):
        await tokens.caller(token)
    taken = (time.perf_counter() - began) / size.tasks
    await database.close()
    return Row(name="a token that is known", figure=ms(taken), unit="ms", target=1.0)
