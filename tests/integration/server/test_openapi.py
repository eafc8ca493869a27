"""An outside judge: schemathesis calls every route with odd and broken input, and compares with our OpenAPI."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.integration.server.models import says
from tests.integration.server.serving import serving


class _Background:
    """A server in a loop and thread of its own: the judge is not asynchronous."""

    def __init__(self, home: Path) -> None:
        self.url = ""
        self._home = home
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "_Background":
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        async with serving(self._home, in_process=False) as served:
            await served.client.start_session(await served.agent(says("hi")), "Hello", instance="known")
            self.url = served.url
            self._ready.set()
            await self._stop.wait()


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with _Background(tmp_path_factory.mktemp("fuzzed")) as server:
        yield schemathesis.openapi.from_url(f"{server.url}/openapi.json")


@pytest.mark.behaviour("server:openapi:true")
def test_every_answer_is_one_that_the_openapi_document_knows(schema: Any) -> None:
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) >= 20
    for operation in operations:
        _judge(operation)


def _judge(operation: Any) -> None:
    modes = st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in schemathesis.GenerationMode))

    @settings(
        max_examples=20, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(modes)
    def judge(case: Any) -> None:
        # A cursor or definition of the right shape may still mean nothing.
        case.call_and_validate(timeout=10, excluded_checks=[positive_data_acceptance])

    judge()
