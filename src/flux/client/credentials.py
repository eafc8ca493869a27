"""Logins that are kept on this machine, by the address of the server they are for: readable by their owner alone."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import msgspec

from flux.client.login import Login, Provider, provider_client
from flux.errors import InvalidInput

#: A token that is good for less is refreshed first. Seconds.
SOON = 30.0


class Credentials:
    """The file of logins."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "credentials.json"

    def get(self, server: str) -> Login | None:
        """The login for a server.

        :raises InvalidInput: the file cannot be used
        """
        return self._read().get(_key(server))

    def put(self, server: str, login: Login | None) -> None:
        """Keep a login, or with None none any more."""
        with self._locked():
            self._write(server, login)

    async def fresh(self, server: str, *, not_this: str | None = None) -> str | None:
        """A token for a server, refreshed if it is about to expire or is `not_this`; None: there is no login.

        Of all processes here one refreshes: a token to refresh by is good for once.

        :raises Unauthorized: the login is over
        """
        login = self.get(server)
        if login is None or _good(login, not_this):
            return login.token if login else None
        lock = await asyncio.to_thread(self._lock)
        try:
            login = self.get(server)
            if login is None or _good(login, not_this):  # another process was faster
                return login.token if login else None
            async with provider_client() as http:
                login = await (await Provider.find(http, login.client)).again(login)
            self._write(server, login)
            return login.token
        finally:
            os.close(lock)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = self._lock()
        try:
            yield
        finally:
            os.close(lock)

    def _lock(self) -> int:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        return lock

    def _read(self) -> dict[str, Login]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, Login])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError) as error:
            raise InvalidInput(f"{self._path} cannot be used: {error}; remove it and run `flux auth login`") from error

    def _write(self, server: str, login: Login | None) -> None:
        found = self._read()
        found.pop(_key(server), None)
        if login is not None:
            found[_key(server)] = login
        beside = self._path.with_suffix(f".{os.getpid()}")
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.json.encode(found))
        beside.replace(self._path)


class StoredLogin(httpx.Auth):
    """Calls a server with the login that is kept for it."""

    def __init__(self, credentials: Credentials, server: str) -> None:
        self._credentials = credentials
        self._server = server

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Send the token; once more with a fresh one when it is refused."""
        token = await self._credentials.fresh(self._server)
        if token is None:
            yield request
            return
        request.headers["Authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code == 401:
            again = await self._credentials.fresh(self._server, not_this=token)
            request.headers["Authorization"] = f"Bearer {again}"
            yield request


def _good(login: Login, not_this: str | None) -> bool:
    return login.token != not_this and login.expires_at > time.time() + SOON


def _key(server: str) -> str:
    return server.rstrip("/")
