"""Running and resuming workflows over HTTP: what each mode answers, and when."""

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from flux.client.reader import Event
from flux.client.sse import Parser, ServerEvent
from flux.errors import WorkflowNotFound
from flux.events import Progress, type_of
from tests.integration.server.flows import ran, registered
from tests.integration.server.serving import Served, serving
from tests.integration.server.test_errors import JSON, error_of
from tests.integration.server.test_sessions import call, refused

NOBODY = "00000000-0000-0000-0000-000000000000"
RUN = "/workflows/default"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long for a timer, a child or a worker."""
    monkeypatch.setattr("flux.server.waiting.PATIENCE_SECONDS", 1.0)


async def streamed(served: Served, path: str, body: Any = None) -> list[ServerEvent]:
    """The frames of a run or resume, to the end of the stream."""
    response = await served.http.post(path, json=body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    return list(Parser().feed(response.content))


@pytest.mark.behaviour("server:runs:modes")
async def test_sync_answers_with_the_output_and_async_at_once(stored: Served) -> None:
    await registered(stored)
    shown = await call(stored, "POST", f"{RUN}/double/run/sync", 200, 21)
    assert (shown["state"], shown["input"], shown["output"], shown["workflow_version"]) == ("COMPLETED", 21, 42, 1)
    assert (shown["workflow"], shown["workflow_name"], shown["kind"]) == ("default/double", "double", "workflow")
    assert "events" not in shown
    started = await call(stored, "POST", f"{RUN}/review/run/async", 202, "tea")
    assert started["state"] in ("SCHEDULED", "RUNNING", "PAUSED")
    detailed = await call(stored, "POST", f"{RUN}/double/run/sync?detailed=true", 200)
    assert detailed["state"] == "FAILED"
    assert "TypeError" in detailed["error"]
    assert [event["type"] for event in detailed["events"]] == [
        "WORKFLOW_SCHEDULED", "WORKFLOW_CLAIMED", "WORKFLOW_STARTED", "WORKFLOW_FAILED",
    ]  # fmt: skip


@pytest.mark.behaviour("server:runs:version")
async def test_a_version_can_be_named_and_stays_with_the_execution(stored: Served) -> None:
    for number in (1, 2):
        source = f"from flux import workflow\n@workflow\nasync def versioned(ctx):\n    return {number}\n"
        await stored.client.upload("/workflows", "v.py", source.encode())
    newest = await call(stored, "POST", f"{RUN}/versioned/run/sync", 200)
    assert (newest["output"], newest["workflow_version"]) == (2, 2)
    first = await call(stored, "POST", f"{RUN}/versioned/run/sync?version=1", 200)
    assert (first["output"], first["workflow_version"]) == (1, 1)
    assert await refused(stored, "POST", f"{RUN}/versioned/run/sync?version=3", 404) == "workflow_not_found"
    key = {"Idempotency_Key": str(uuid.uuid4())}
    await call(stored, "POST", f"{RUN}/versioned/run/sync?version=1", 200, **key)
    await call(stored, "POST", f"{RUN}/versioned/run/sync?version=2", 409, **key)


@pytest.mark.behaviour("server:runs:refused")
async def test_what_cannot_be_run_or_resumed_is_refused(stored: Served) -> None:
    await registered(stored)
    error = (await call(stored, "POST", f"{RUN}/nobody/run/sync", 404))["error"]
    assert (error["type"], "flux workflow list" in error["message"]) == ("workflow_not_found", True)
    assert await refused(stored, "POST", f"{RUN}/double/run/later", 400) == "invalid_input"
    assert await refused(stored, "POST", f"{RUN}/double/run/sync?version=0", 400) == "invalid_input"
    assert await refused(stored, "POST", f"{RUN}/review/resume/{NOBODY}/sync", 404) == "execution_not_found"
    done = (await call(stored, "POST", f"{RUN}/double/run/sync", 200, 1))["execution_id"]
    assert await refused(stored, "POST", f"{RUN}/double/resume/{done}/sync", 400) == "execution_finished"
    asleep = (await call(stored, "POST", f"{RUN}/sleeps/run/async", 202))["execution_id"]
    assert await refused(stored, "POST", f"{RUN}/sleeps/resume/{asleep}/sync", 409) == "not_paused"
    paused = (await call(stored, "POST", f"{RUN}/review/run/sync", 200))["execution_id"]
    assert await refused(stored, "POST", f"{RUN}/double/resume/{paused}/sync", 404) == "execution_not_found"
    wrong = (await call(stored, "POST", f"{RUN}/review/resume/{paused}/sync?pause=left", 409, 1))["error"]
    assert wrong["type"] == "not_paused"
    assert "no open pause 'left'; open: review" in wrong["message"]
    right = await call(stored, "POST", f"{RUN}/review/resume/{paused}/sync?pause=review", 200, "kept")
    assert right["output"] == {"answer": "kept"}


@pytest.mark.behaviour("server:runs:refused")
@pytest.mark.parametrize("path", ["/workflows/default/review/run/sync", "/workflows/default/review/resume/{id}/sync"])
async def test_an_input_that_is_no_json_is_refused(in_memory: Served, path: str) -> None:
    path = path.format(id=(await ran(in_memory, "review"))["execution_id"])
    broken = error_of(await in_memory.http.post(path, content=b"{half", headers=JSON), 400)
    assert broken["message"].startswith("the body is not JSON")
    for content, kind in ((b"hello", "text/plain"), (b"a=b", "application/x-www-form-urlencoded"), (b"hello", "")):
        other = error_of(await in_memory.http.post(path, content=content, headers={"Content-Type": kind}), 400)
        assert other["type"] == "invalid_input"
        assert "JSON" in other["message"]
    deep = error_of(await in_memory.http.post(path, content=b"[" * 500 + b"]" * 500, headers=JSON), 400)
    assert "nested" in deep["message"]


@pytest.mark.behaviour("server:runs:data")
async def test_an_input_from_outside_is_data_and_no_envelope(stored: Served) -> None:
    envelope = {"$flux": "set", "value": [1, 2]}
    shown = await ran(stored, "kind", envelope)
    assert (shown["input"], shown["output"]) == (envelope, "dict")
    paused = (await ran(stored, "review", envelope))["execution_id"]
    answered = await call(stored, "POST", f"{RUN}/review/resume/{paused}/sync", 200, envelope)
    assert answered["output"] == {"answer": envelope}


@pytest.mark.behaviour("server:runs:pauses")
async def test_sync_answers_when_it_pauses(stored: Served) -> None:
    shown = await ran(stored, "in_turn")
    assert (shown["state"], shown["waiting_for"], shown["pause"]) == ("PAUSED", "pause", "first")
    path = f"{RUN}/in_turn/resume/{shown['execution_id']}/sync"
    shown = await call(stored, "POST", path, 200, "one")
    assert (shown["state"], shown["pause"]) == ("PAUSED", "second")
    shown = await call(stored, "POST", path, 200, "two")
    assert (shown["state"], shown["output"]) == ("COMPLETED", ["one", "two"])


@pytest.mark.behaviour("server:runs:pauses")
async def test_of_several_open_pauses_one_must_be_named(stored: Served) -> None:
    shown = await ran(stored, "two_pauses")
    assert {one["name"] for one in shown["output"]["open"]} == {"left", "right"}
    path = f"{RUN}/two_pauses/resume/{shown['execution_id']}/sync"
    unnamed = (await call(stored, "POST", path, 409, "x"))["error"]
    assert "several open pauses (left, right)" in unnamed["message"]
    assert (await call(stored, "POST", f"{path}?pause=right", 200, "R"))["pause"] == "left"
    assert (await call(stored, "POST", path, 200, "L"))["output"] == ["L", "R"]


@pytest.mark.behaviour("server:runs:never-hangs")
async def test_sync_answers_when_somebody_must_approve(stored: Served) -> None:
    shown = await ran(stored, "pays", [5])
    assert (shown["state"], shown["waiting_for"]) == ("PAUSED", "approval")
    assert shown["output"]["task"] == "transfer"


@pytest.mark.behaviour("server:runs:never-hangs")
@pytest.mark.usefixtures("impatient")
async def test_sync_answers_during_a_long_sleep_and_while_a_child_is_paused(stored: Served) -> None:
    asleep = await ran(stored, "sleeps")
    assert (asleep["state"], asleep["waiting_for"], asleep["pause"]) == ("PAUSED", "timer", None)
    parent = await ran(stored, "parent", "tea")
    assert (parent["state"], parent["waiting_for"]) == ("PAUSED", "child")
    child = await stored.client.execution(parent["output"]["execution_id"]).info()
    assert (child["state"], child["parent"]) == ("PAUSED", parent["execution_id"])
    await call(stored, "POST", f"{RUN}/review/resume/{child['execution_id']}/sync", 200, "hot")
    frames = stored.client.execution(parent["execution_id"])
    async for event in frames.events():
        if type_of(event.event) == "WORKFLOW_COMPLETED":
            break
    assert (await frames.info())["output"] == {"answer": "hot"}


@pytest.mark.behaviour("server:runs:never-hangs")
@pytest.mark.usefixtures("impatient")
async def test_sync_answers_when_there_is_no_worker(tmp_path: Path) -> None:
    async with serving(tmp_path, in_process=True, worker=False) as idle:
        assert (await ran(idle, "double", 1))["state"] == "SCHEDULED"


@pytest.mark.behaviour("server:runs:never-hangs")
async def test_sync_answers_when_the_server_stops_and_forgets_who_left(in_memory: Served) -> None:
    running = asyncio.create_task(ran(in_memory, "hangs"))
    await in_memory.exchanges.until(1)
    running.cancel()
    await in_memory.exchanges.until(0)
    in_memory.app.state.closing.set()
    assert (await ran(in_memory, "hangs"))["state"] in ("SCHEDULED", "RUNNING")
    in_memory.app.state.closing.clear()


@pytest.mark.behaviour("server:runs:never-hangs")
async def test_sync_waits_for_a_short_sleep(in_memory: Served) -> None:
    shown = await ran(in_memory, "naps")
    assert (shown["state"], shown["output"]) == ("COMPLETED", "awake")


@pytest.mark.behaviour("server:runs:idempotency")
async def test_a_repeated_run_attaches_to_the_first(stored: Served) -> None:
    await registered(stored)
    key = {"Idempotency_Key": str(uuid.uuid4())}
    path = f"{RUN}/review/run/sync"
    first = await call(stored, "POST", path, 200, "tea", **key)
    assert await call(stored, "POST", path, 200, "tea", **key) == first
    other = await call(stored, "POST", path, 409, "coffee", **key)
    assert other["error"]["type"] == "idempotency_mismatch"
    await call(stored, "POST", f"{RUN}/double/run/sync", 409, "tea", **key)
    done = await call(stored, "POST", f"{RUN}/review/resume/{first['execution_id']}/sync", 200, 1)
    assert await call(stored, "POST", path, 200, "tea", **key) == done


@pytest.mark.behaviour("server:runs:idempotency")
async def test_a_repeated_resume_attaches_to_the_first_also_after_the_end(stored: Served) -> None:
    id = (await ran(stored, "in_turn"))["execution_id"]
    path, keys = f"{RUN}/in_turn/resume/{id}/sync", [{"Idempotency_Key": str(uuid.uuid4())} for _ in range(2)]
    second = await call(stored, "POST", path, 200, "one", **keys[0])
    assert await call(stored, "POST", path, 200, "one", **keys[0]) == second
    other = await call(stored, "POST", path, 409, "two", **keys[0])
    assert other["error"]["type"] == "idempotency_mismatch"
    done = await call(stored, "POST", path, 200, "two", **keys[1])
    assert done["output"] == ["one", "two"]
    assert await call(stored, "POST", path, 200, "two", **keys[1]) == done
    assert await call(stored, "POST", path, 200, "one", **keys[0]) == done


@pytest.mark.behaviour("server:runs:stream")
async def test_a_stream_tells_the_states_and_the_progress_by_name(served: Served) -> None:
    await registered(served)
    frames = await streamed(served, f"{RUN}/tells/run/stream")
    states = [frame for frame in frames if frame.type != "task.progress"]
    assert [frame.type for frame in states] == [
        f"tells.execution.{state}" for state in ("scheduled", "claimed", "running", "completed")
    ]
    told = [json.loads(frame.data) for frame in frames if frame.type == "task.progress"]
    assert [one["value"] for one in told] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert {(one["type"], one["name"]) for one in told} == {("TASK_PROGRESS", "counts")}
    assert told[0]["source_id"].startswith("counts_")
    assert told[0]["time"].endswith("Z")
    summaries = [json.loads(frame.data) for frame in states]
    assert [one["state"] for one in summaries] == ["SCHEDULED", "CLAIMED", "RUNNING", "COMPLETED"]
    assert len({one["execution_id"] for one in summaries}) == 1
    assert all(frame.id.count(".") == 2 for frame in frames)


@pytest.mark.behaviour("server:runs:followed")
async def test_who_starts_it_can_follow_its_log_from_the_first_event(served: Served) -> None:
    await registered(served)
    async with served.client.running_workflow("default/tells") as (handle, events):
        seen = [event.event async for event in stopping(events, "WORKFLOW_COMPLETED")]
    assert [type_of(one) for one in seen if not isinstance(one, Progress)] == [
        "WORKFLOW_SCHEDULED", "WORKFLOW_CLAIMED", "WORKFLOW_STARTED", "TASK_STARTED", "TASK_COMPLETED",
        "WORKFLOW_COMPLETED",
    ]  # fmt: skip
    assert [one.value for one in seen if isinstance(one, Progress)] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert (await handle.info())["state"] == "COMPLETED"
    paused = await call(served, "POST", f"{RUN}/in_turn/run/sync", 200)
    resumed = served.client.resuming_workflow("default/in_turn", paused["execution_id"], "one", after=paused["head"])
    async with resumed as (_, events):
        types = [type_of(event.event) async for event in stopping(events, "WORKFLOW_PAUSED")]
    assert (types[0], types[-1]) == ("interrupt_answered", "WORKFLOW_PAUSED")
    with pytest.raises(WorkflowNotFound):
        await served.client.running_workflow("default/nothing").__aenter__()


async def stopping(events: AsyncGenerator[Event, None], end: str) -> AsyncGenerator[Event, None]:
    async with aclosing(events):
        async for event in events:
            yield event
            if type_of(event.event) == end:
                return


@pytest.mark.behaviour("server:runs:stream")
async def test_a_stream_ends_with_the_pause_and_goes_on_with_the_answer(served: Served) -> None:
    await registered(served)
    frames = await streamed(served, f"{RUN}/in_turn/run/stream")
    paused = json.loads(frames[-1].data)
    assert (frames[-1].type, paused["pause"]) == ("in_turn.execution.paused", "first")
    path = f"{RUN}/in_turn/resume/{paused['execution_id']}/stream"
    again = await streamed(served, path, 1)
    states = ["resuming", "claimed", "running", "paused"]
    assert [frame.type for frame in again] == [f"in_turn.execution.{state}" for state in states]
    last = await streamed(served, path, 2)
    assert json.loads(last[-1].data)["output"] == [1, 2]
    refusal = await served.http.post(path, json=3)
    assert error_of(refusal, 400)["type"] == "execution_finished"


@pytest.mark.behaviour("server:runs:stream")
async def test_a_stream_of_a_failure_tells_why(served: Served) -> None:
    await registered(served)
    frames = await streamed(served, f"{RUN}/fails/run/stream")
    assert frames[-1].type == "fails.execution.failed"
    assert json.loads(frames[-1].data)["error"] == "ValueError: the card was declined"
