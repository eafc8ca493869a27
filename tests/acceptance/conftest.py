"""Real processes may use the same Postgres as the integration tests; those of crash tests are forked."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.crash.databases import fresh_schema
from tests.crash.process import Zygote
from tests.crash.sweep import NewDatabase, zygotes_of
from tests.integration.conftest import postgres, postgres_url
from tests.scale.machines import Machines, machines

__all__ = ["postgres", "postgres_url"]


@pytest.fixture(scope="module")
def zygotes() -> Iterator[list[Zygote]]:
    """One for each core."""
    with zygotes_of(2) as made:
        yield made


@pytest.fixture(params=["sqlite", "postgres"])
def new_database(request: pytest.FixtureRequest) -> Iterator[NewDatabase]:
    """Fresh databases of each kind."""
    if request.param == "sqlite":
        yield lambda: ""
        return
    server: str = request.getfixturevalue("postgres")
    with ExitStack() as stack:
        yield lambda: stack.enter_context(fresh_schema(server))


@pytest.fixture
def many(tmp_path: Path, postgres_url: str) -> Iterator[Machines]:
    """Servers and workers on one database, as many as a test starts."""
    with machines(tmp_path, postgres_url) as made:
        yield made
