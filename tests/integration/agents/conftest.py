"""One process of a test's own, its tools included."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.agents.tools import Bench
from tests.integration.agents.world import World, opened


@pytest.fixture
async def bench() -> Bench:
    return Bench()


@pytest.fixture
async def world(tmp_path: Path, bench: Bench) -> AsyncIterator[World]:
    async with opened(tmp_path, bench.tools(), model_attempts=3, run_failures=2) as world:
        yield world
