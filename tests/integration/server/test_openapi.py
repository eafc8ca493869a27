"""An outside judge: schemathesis calls every route with odd and broken input, and compares with our OpenAPI."""

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import positive_data_acceptance

from flux.settings import ApiKeys, Auth
from flux.store.database import LOCAL
from tests.integration.server.models import says
from tests.integration.server.serving import serving

#: Calls of each route.
EXAMPLES = int(os.environ.get("FLUX_TEST_EXAMPLES", "8"))

#: It always waits for an answer, and for an approval until that is decided.
WORKFLOW = """\
from flux import pause, task, workflow
from flux.tasks import parallel

@task.with_options(requires_approval=True, fallback=print)
async def asks(): ...

async def answered():
    while True:
        await pause("more")

@workflow
async def {}(ctx):
    await parallel(asks(), answered())
"""


class _Background:
    """A server in a loop and thread of its own: the judge is not asynchronous."""

    def __init__(self, home: Path, role: str | None = None) -> None:
        self.url = ""
        self.headers: dict[str, str] = {}
        self._role = role
        self.known: dict[str, str] = {}
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
        auth = Auth(api_keys=ApiKeys(enabled=self._role is not None))
        async with serving(
            self._home, in_process=False, change=lambda settings: replace(settings, auth=auth)
        ) as served:
            if self._role is not None:
                service = served.process.principals
                served.client = served.new_client((await service.admin_key("first")).secret)
                await service.create(LOCAL, "judge", "service_account", [self._role])
                key = (await service.create_key(LOCAL, "judge", "key", None)).secret
                self.headers = {"Authorization": f"Bearer {key}"}
            agent = await served.agent(says("hi"))
            session = await served.client.start_session(agent, "Hello")
            times = {"agent": agent, "message": "Hello", "interval": "1h"}
            await served.client.post("/schedules", {"name": agent, **times})
            await served.client.upload("/workflows", "w.py", WORKFLOW.format(agent).encode())
            self.known = {"id": session.id, "name": agent, "namespace": "default"}
            execution = (await served.client.run_workflow(f"default/{agent}"))["execution_id"]
            [asked] = (await served.client.get(f"/executions/{execution}/approvals"))["items"]
            self.known |= {"execution": execution, "call": asked["id"]}
            self.url = served.url
            self._ready.set()
            await self._stop.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Background]:
    with _Background(tmp_path_factory.mktemp("fuzzed")) as running:
        yield running


@pytest.mark.timeout(180)
@pytest.mark.behaviour("server:openapi:true")
def test_every_answer_is_one_that_the_openapi_document_knows(server: _Background) -> None:
    judge_all(server, EXAMPLES)


@pytest.mark.timeout(180)
@pytest.mark.behaviour("server:openapi:true")
@pytest.mark.parametrize("role", ["admin", "viewer"])
def test_so_it_is_with_a_key(tmp_path: Path, role: str) -> None:
    with _Background(tmp_path, role) as running:
        judge_all(running, max(1, EXAMPLES // 4))


def judge_all(server: _Background, examples: int) -> None:
    """Call every route so often."""
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json", headers=server.headers)
    operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    assert len(operations) >= 20
    for operation in operations:
        _judge(operation, server, examples)


def _judge(operation: Any, server: _Background, examples: int) -> None:
    known = server.known

    def of_something(case: Any) -> Any:
        """The same call, for a session, agent or workflow that is there."""
        case.path_parameters |= {name: known[name] for name in case.path_parameters if name in known}
        return case

    strategies = [operation.as_strategy(generation_mode=mode) for mode in schemathesis.GenerationMode]
    if operation.method != "delete" and not operation.path.endswith(("/stop", "/cancel")):
        strategies.append(operation.as_strategy(generation_mode=schemathesis.GenerationMode.POSITIVE).map(of_something))

    @settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.one_of(strategies))
    def judge(case: Any) -> None:
        # A cursor or definition of the right shape may still mean nothing.
        case.call_and_validate(timeout=10, headers=server.headers, excluded_checks=[positive_data_acceptance])

    judge()
