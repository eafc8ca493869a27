"""A process that runs workflows."""

from collections.abc import AsyncIterator

import pytest

from flux.store.database import Database
from tests.integration.workflows.machine import Machine, working


@pytest.fixture
async def machine(database: Database) -> AsyncIterator[Machine]:
    async with working(database) as found:
        yield found
