from collections.abc import AsyncIterator
from contextlib import nullcontext

import pytest

from tests.crash.databases import fresh_schema
from tests.integration.server.serving import Served, serving


@pytest.fixture(scope="package", params=["in-process", "socket"])
async def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A running server, reached in this process and over a loopback socket."""
    async with serving(tmp_path_factory.mktemp("home"), in_process=request.param == "in-process") as running:
        yield running


@pytest.fixture(scope="package")
async def in_memory(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A running server, reached in this process: for what does not depend on the way there."""
    async with serving(tmp_path_factory.mktemp("home"), in_process=True) as running:
        yield running


@pytest.fixture(scope="package")
async def on_socket(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A running server, reached over a loopback socket."""
    async with serving(tmp_path_factory.mktemp("home"), in_process=False) as running:
        yield running


@pytest.fixture(scope="package", params=["sqlite", "postgres"])
async def stored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A running server on each kind of database, reached in this process."""
    home = tmp_path_factory.mktemp("home")
    with fresh_schema(request.getfixturevalue("postgres")) if request.param == "postgres" else nullcontext("") as url:
        async with serving(home, in_process=True, database_url=url) as running:
            yield running
