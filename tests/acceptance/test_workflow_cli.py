"""Workflows and executions on the command line, embedded and on a server: outputs, exit codes, one-line errors."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.test_cli import Done, Flux, complains, serving
from tests.acceptance.test_cli import flux as flux  # noqa: PLC0414 - the fixture

SOURCE = """\
import asyncio
from flux import pause, task, workflow
from flux.tasks import progress

@workflow
async def double(ctx):
    await progress("half way")
    await asyncio.sleep(0.5)  # long enough that somebody who watches is there
    return ctx.input * 2

@workflow
async def review(ctx):
    first = await pause("draft", output=ctx.input)
    return [first, await pause("final")]

@task.with_options(requires_approval=True)
async def transfer(amount):
    return f"sent {amount}"

@workflow
async def pays(ctx):
    return [await transfer(amount) for amount in ctx.input]

@workflow
async def hangs(ctx):
    await asyncio.Event().wait()
"""


@pytest.fixture(params=["embedded", "server"])
def there(request: pytest.FixtureRequest, flux: Flux, tmp_path: Path) -> Iterator[Flux]:
    """The command with these workflows: on its own home, or on the server that runs on it."""
    (tmp_path / "flows.py").write_text(SOURCE)
    if request.param == "server":
        with serving(tmp_path):
            assert flux("workflow", "register", "flows.py").returncode == 0
            yield flux
        return
    assert flux("workflow", "register", "flows.py").returncode == 0
    yield flux


def shown(done: Done, code: int = 0) -> Any:
    """The JSON that a command printed."""
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


@pytest.mark.behaviour("cli:workflows:run")
def test_a_workflow_runs_and_its_outcome_is_the_exit_code(there: Flux, tmp_path: Path) -> None:
    ran = there("workflow", "run", "double", "21")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[1:] == ["Workflow:  default/double", "State:     COMPLETED", "Output:    42"]
    assert there("workflow", "run", "default/double", "tea").stdout.endswith('Output:    "teatea"\n')
    (tmp_path / "input.json").write_text("[1]")
    assert shown(there("workflow", "run", "double", "@input.json", "--format", "json"))["output"] == [1, 1]
    given = there("workflow", "run", "double", "-", "--format", "json", "--version", "1", given="4")
    assert (shown(given)["output"], shown(given)["workflow_version"]) == (8, 1)
    failed = there("workflow", "run", "double")
    assert failed.returncode == 1
    assert "State:     FAILED\nError:     TypeError: " in failed.stdout
    assert shown(there("workflow", "run", "double", "--format", "json"), 1)["state"] == "FAILED"
    detailed = there("workflow", "run", "double", "1", "--detailed").stdout
    assert [line.split()[1] for line in detailed.splitlines()[4:]] == [
        "WORKFLOW_SCHEDULED", "WORKFLOW_CLAIMED", "WORKFLOW_STARTED", "WORKFLOW_COMPLETED",
    ]  # fmt: skip


@pytest.mark.behaviour("cli:workflows:run")
def test_a_paused_execution_is_found_by_the_beginning_of_its_id_and_resumed(there: Flux) -> None:
    paused = there("workflow", "run", "review", '{"text": "tea"}')
    assert paused.returncode == 0
    id = paused.stdout.splitlines()[0].removeprefix("Execution: ")
    assert "State:     PAUSED (waiting for pause)\nPause:     draft\n" in paused.stdout
    assert f"Go on with: flux workflow resume {id} INPUT" in paused.stderr
    assert there("workflow", "status", id[:6]).stdout == paused.stdout
    assert there("execution", "show", id[:6], "--format", "json").stdout == (
        there("workflow", "status", id, "--format", "json").stdout
    )
    complains(there("workflow", "resume", id[:6], "x", "--pause", "final"), 1, "no open pause 'final'; open: draft")
    streamed = there("workflow", "resume", id[:6], "good", "--pause", "draft", "--mode", "stream")
    types = [json.loads(line)["type"] for line in streamed.stdout.splitlines()]
    assert types == ["interrupt_answered", "WORKFLOW_CLAIMED", "WORKFLOW_RESUMED", "pause", "WORKFLOW_PAUSED"]
    done = shown(there("workflow", "resume", id[:6], "true", "--format", "json"))
    assert (done["state"], done["output"]) == ("COMPLETED", ["good", True])
    complains(there("workflow", "resume", id[:6]), 2, "has finished")


@pytest.mark.behaviour("cli:workflows:run")
def test_a_streamed_run_prints_each_event_and_an_asynchronous_one_answers_at_once(there: Flux) -> None:
    streamed = there("workflow", "run", "double", "1", "--mode", "stream")
    events = [json.loads(line) for line in streamed.stdout.splitlines()]
    assert [event["type"] for event in events if event["type"] != "progress"] == [
        "WORKFLOW_SCHEDULED", "WORKFLOW_CLAIMED", "WORKFLOW_STARTED", "WORKFLOW_COMPLETED",
    ]  # fmt: skip
    assert [event["value"] for event in events if event["type"] == "progress"] == ["half way"]
    assert there("workflow", "run", "double", "--mode", "stream").returncode == 1
    started = shown(there("workflow", "run", "hangs", "--mode", "async", "--format", "json"))
    assert started["state"] in ("SCHEDULED", "RUNNING")


@pytest.mark.behaviour("cli:executions:cancel")
def test_an_execution_is_cancelled(there: Flux) -> None:
    for name in ("hangs", "review"):
        id = shown(there("workflow", "run", name, "--mode", "async", "--format", "json"))["execution_id"]
        cancelled = there("workflow", "cancel", id[:8])
        assert (cancelled.returncode, "State:     CANCELLED\n" in cancelled.stdout) == (0, True), cancelled
        again = there("execution", "cancel", id)
        assert again.stdout == cancelled.stdout
        assert "ended already" in again.stderr
        assert shown(there("workflow", "status", id, "--format", "json"))["state"] == "CANCELLED"


@pytest.mark.behaviour("cli:executions:life")
def test_executions_are_listed_and_their_events_shown(there: Flux) -> None:
    assert "No executions yet." in there("execution", "list").stderr
    ids = [shown(there("workflow", "run", "double", n, "--format", "json"))["execution_id"] for n in ("1", "2")]
    there("workflow", "run", "review")
    listed = there("execution", "list", "--workflow", "double", "--state", "completed", "--format", "json")
    assert [row["execution_id"] for row in shown(listed)] == ids[::-1]
    lines = there("execution", "list", "--limit", "2").stdout.splitlines()
    assert lines[0].split()[:3] == ["EXECUTION", "WORKFLOW", "STATE"]
    assert tuple(lines[1].split()[1:3]) == ("default/review", "PAUSED")
    assert len(lines) == 3
    told = there("execution", "events", ids[0][:8]).stdout.splitlines()
    assert [line.split()[3] for line in told] == [
        "WORKFLOW_SCHEDULED", "WORKFLOW_CLAIMED", "WORKFLOW_STARTED", "WORKFLOW_COMPLETED",
    ]  # fmt: skip
    last = shown(there("execution", "events", ids[0], "--after", "3", "--format", "json"))
    assert [(entry["seq"], entry["value"]) for entry in last] == [(4, 2)]


@pytest.mark.behaviour("cli:executions:approvals")
def test_what_waits_for_approval_is_listed_and_decided(there: Flux) -> None:
    waiting = there("workflow", "run", "pays", "[1, 2]")
    id = waiting.stdout.splitlines()[0].removeprefix("Execution: ")
    assert "State:     PAUSED (waiting for approval)" in waiting.stdout
    assert f"Go on with: flux execution approvals {id}" in waiting.stderr
    [asked] = shown(there("execution", "approvals", "--format", "json"))
    assert (asked["execution_id"], asked["task"], asked["args"]) == (id, "transfer", {"amount": 1})
    table = there("execution", "approvals", id[:8]).stdout
    assert "transfer" in table
    assert '{"amount": 1}' in table
    decided = there("execution", "approve", id[:8], asked["id"][:8], "--always", "--reason", "fine")
    assert decided.stdout == "transfer is approved.\n"
    complains(there("execution", "reject", id, asked["id"]), 1, "is answered already")
    # --always lets the second call pass.
    assert _ended(there, id)["output"] == ["sent 1", "sent 2"]
    assert "Nothing waits for approval." in there("execution", "approvals").stderr
    assert [row["reason"] for row in shown(there("execution", "approvals", "--status", "approved", "--format", "json"))]
    second = shown(there("workflow", "run", "pays", "[3]", "--format", "json"))["execution_id"]
    [asked] = shown(there("execution", "approvals", second, "--format", "json"))
    rejected = shown(there("execution", "reject", second, asked["id"], "--reason", "too much", "--format", "json"))
    assert rejected["status"] == "rejected"
    assert _ended(there, second)["error"] == "transfer was rejected by local: too much"


def _ended(there: Flux, id: str) -> Any:
    """An execution at its end: a command on its own home has waited for it, a server may be at it still."""
    for _ in range(20):
        row = shown(there("workflow", "status", id, "--format", "json"))
        if row["state"] in ("COMPLETED", "FAILED"):
            return row
    raise AssertionError(row)


@pytest.mark.behaviour("cli:executions:one-line")
def test_a_mistake_is_one_line_with_the_remedy(there: Flux) -> None:
    there("workflow", "run", "review")
    there("workflow", "run", "review")
    complains(there("workflow", "run", "duoble"), 1, "duoble", "flux workflow list")
    complains(there("workflow", "run", "double", "1", "--version", "7"), 1, "version 7", "flux workflow list")
    complains(there("workflow", "run", "double", "@nowhere.json"), 2, "nowhere.json")
    for command in (
        ("workflow", "status"), ("workflow", "resume"), ("workflow", "cancel"), ("execution", "show"),
        ("execution", "events"), ("execution", "approvals"),
    ):  # fmt: skip
        complains(there(*command, "zzz"), 1, "no execution 'zzz'", "flux execution list")
    complains(there("workflow", "status", ""), 2, "2 executions begin with", "type more of the id")
    complains(there("execution", "list", "--state", "DONE"), 2, "DONE", "completed")
    [first, _] = shown(there("execution", "list", "--format", "json"))
    complains(there("execution", "approve", first["execution_id"], "zz"), 1, "'zz'", "flux execution approvals")


@pytest.mark.behaviour("cli:executions:one-line")
def test_a_server_that_is_down_is_an_error(flux: Flux) -> None:
    for command in (("workflow", "run", "x"), ("execution", "list")):
        complains(flux(*command, "--server", "http://127.0.0.1:9"), 1, "http://127.0.0.1:9", "flux start server")
