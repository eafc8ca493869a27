"""The routes of registered workflows, and what a server tells of itself."""

import httpx
import pytest

import flux
from flux.client.workflows import WorkflowsClient
from flux.engine.sources.catalog import MAX_SOURCE_BYTES
from flux.errors import DatabaseUnavailable, SourceInvalid, WorkflowNotFound
from flux.metrics import Counter, Family, exposition
from tests.integration.server.models import says
from tests.integration.server.serving import Served
from tests.integration.server.streams import history
from tests.integration.server.test_errors import error_of
from tests.integration.server.test_sessions import call, refused

SOURCE = """\
from flux import cron, workflow

@workflow.with_options(namespace="{namespace}", schedule=cron("0 9 * * *"))
async def hello(ctx):
    "Say hello."
    return {number}

@workflow.with_options(namespace="{namespace}")
async def bye(ctx): ...
"""


def source(namespace: str, number: int = 1) -> bytes:
    return SOURCE.format(namespace=namespace, number=number).encode()


@pytest.mark.behaviour("server:workflows:life")
async def test_workflows_are_registered_shown_listed_changed_and_deleted(served: Served) -> None:
    workflows = WorkflowsClient(served.client)
    made = await workflows.register(source("life"), "hello.py")
    assert [(row["name"], row["version"]) for row in made] == [("bye", 1), ("hello", 1)]
    assert await workflows.register(source("life")) == made
    shown = await workflows.get("life/hello")
    assert shown == made[1]
    assert shown["options"] == {
        "schedule": {"type": "cron", "expr": "0 9 * * *", "timezone": "UTC"},
        "description": "Say hello.",
        "imports": ["flux"],
    }
    changed = (await workflows.register(source("life", 2)))[1]
    assert changed["version"] == 2
    assert (await workflows.get("life/hello", source=True))["source"] == source("life", 2).decode()
    assert (await workflows.get("life/hello", 1, source=True))["source"] == source("life", 1).decode()
    assert [row async for row in workflows.versions("life/hello")] == [changed, shown]
    first = await call(served, "GET", "/workflows/life/hello/versions?limit=1", 200)
    assert first["items"] == [changed]
    assert (
        await call(served, "GET", f"/workflows/life/hello/versions?limit=1&cursor={first['next_cursor']}", 200)
    ) == {"items": [shown], "next_cursor": None}
    assert [row["name"] async for row in workflows.list("life")] == ["bye", "hello"]
    listed = [(row["namespace"], row["name"]) async for row in served.client.pages("/workflows", limit=1)]
    assert listed == sorted(listed)
    assert ("life", "hello") in listed
    await workflows.delete("life/hello")
    with pytest.raises(WorkflowNotFound, match="there is no workflow life/hello; `flux workflow list`"):
        await workflows.get("life/hello")
    assert await refused(served, "DELETE", "/workflows/life/hello", 404) == "workflow_not_found"
    assert await refused(served, "GET", "/workflows/life/bye/versions/7", 404) == "workflow_not_found"
    assert await refused(served, "GET", "/workflows/life/nobody/versions", 404) == "workflow_not_found"
    assert await call(served, "GET", "/workflows/life/hello/versions/2", 200) == changed


@pytest.mark.behaviour("server:workflows:refused")
async def test_an_upload_that_cannot_be_registered_is_refused_with_the_reason(served: Served) -> None:
    workflows = WorkflowsClient(served.client)
    with pytest.raises(SourceInvalid) as caught:
        await workflows.register(b"async def broken(:")
    assert str(caught.value) == "the source does not parse: line 1, column 18: invalid syntax"
    assert caught.value.details == {"line": 1, "column": 18}
    huge = await served.http.post("/workflows", files={"file": b"#" * (MAX_SOURCE_BYTES + 1)})
    assert error_of(huge, 413)["type"] == "too_large"
    good = source("refused")

    async def message(**request: object) -> str:
        response: httpx.Response = await served.http.post("/workflows", **request)  # type: ignore[arg-type]
        return str(error_of(response, 400)["message"])

    assert (
        await message(files={"file": good, "fiel": good}) == "unknown field 'fiel'; the file goes in the field 'file'"
    )
    assert await message(files=[("file", good), ("file", good)]) == "there are several files; send them one by one"
    assert await message(files={"other": good}) == "missing field 'file'"
    assert await message() == "missing field 'file'"
    assert "file" in await message(json={"file": "x"})
    assert "file" in await message(data={"file": "x"})
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    assert "cannot be read as a form" in await message(content=b"--y\r\nbroken", headers=form)
    assert await refused(served, "GET", "/workflows/refused/hello", 404) == "workflow_not_found"


@pytest.mark.behaviour("server:metrics")
async def test_metrics_tell_what_was_done(served: Served) -> None:
    before = (await served.http.get("/metrics")).text
    session = await served.client.start_session(await served.agent(says("hi")), "Hello")
    await history(served.client, session.id)
    await served.http.get("/workflows/nobody/there")
    response = await served.http.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    after = values(response.text)
    grown = {name: value - values(before).get(name, 0) for name, value in after.items()}
    assert grown['flux_runs_started_total{kind="session"}'] == 1
    assert grown['flux_runs_ended_total{kind="session",outcome="completed"}'] == 1
    assert grown['flux_model_calls_total{outcome="answered"}'] == 1
    missing = 'flux_http_requests_total{method="GET",route="/workflows/{namespace}/{name}",status="404"}'
    assert grown[missing] == 1
    assert after[f'flux_info{{version="{flux.__version__}"}}'] == after["flux_database_up"] == 1
    assert "flux_workers_alive" in after


def values(text: str) -> dict[str, float]:
    """The samples of an exposition."""
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


@pytest.mark.behaviour("server:metrics")
def test_a_metric_is_written_as_prometheus_reads_it() -> None:
    counter = Counter("calls_total", "Calls.", "tool", "status")
    counter.add('a"b\\c\nd', "ok", by=2)
    counter.add("x", "ok")
    assert counter.value("x", "ok") == 1
    assert exposition([counter.family(), Family("up", "gauge", "Up.", (), {(): 1})]) == (
        "# HELP calls_total Calls.\n# TYPE calls_total counter\n"
        'calls_total{tool="a\\"b\\\\c\\nd",status="ok"} 2\n'
        'calls_total{tool="x",status="ok"} 1\n'
        "# HELP up Up.\n# TYPE up gauge\nup 1\n"
    )


@pytest.mark.behaviour("server:health:database-away")
async def test_without_its_database_a_server_lives_and_is_not_ready(
    in_memory: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    healthy = {"status": "ok", "version": flux.__version__, "database": "ok"}
    assert await call(in_memory, "GET", "/health", 200) == healthy
    assert await call(in_memory, "GET", "/ready", 200) == healthy

    async def away(*_: object) -> None:
        raise DatabaseUnavailable("the database is away")

    monkeypatch.setattr(in_memory.process.database, "read", away)
    monkeypatch.setattr(in_memory.process.database, "scan", away)
    monkeypatch.setattr("flux.server.measure.FRESH_SECONDS", 0.0)
    assert await call(in_memory, "GET", "/health", 200) == healthy | {"database": "the database is away"}
    error = (await call(in_memory, "GET", "/ready", 503))["error"]
    assert (error["type"], error["message"]) == ("database_unavailable", "the database is away")
    assert values((await in_memory.http.get("/metrics")).text)["flux_database_up"] == 0
