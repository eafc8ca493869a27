"""What workflows return, where it is kept elsewhere than in the log."""

from pathlib import Path
from typing import Any

import pytest

from flux import ExecutionContext, call, workflow
from flux.entries.workflows import WorkflowCompleted
from flux.output_storage import LocalFileStorage, OutputStorage, OutputStorageReference
from tests.integration.workflows.machine import Machine

LARGE = "x" * 100_000


class Full(OutputStorage):
    """A storage that takes nothing."""

    def store(self, reference_id: str, value: Any) -> OutputStorageReference:
        raise OSError("the disk is full")

    def retrieve(self, reference: OutputStorageReference) -> Any:
        raise AssertionError

    def delete(self, reference: OutputStorageReference) -> None:
        raise AssertionError


async def large(ctx: ExecutionContext[int]) -> Any:
    return {"text": LARGE, "n": ctx.input}


async def asks_for_both(ctx: ExecutionContext[None]) -> Any:
    code = kept_in(Path(await _folder(ctx)))
    return [(await call(code, 1))["n"], (await call("outputs/large", 2))["storage_type"]]


async def _folder(ctx: ExecutionContext[Any]) -> str:
    return str(ctx.input)


def kept_in(folder: Path) -> workflow:
    return workflow.with_options(namespace="outputs", output_storage=LocalFileStorage(folder))(large)


@pytest.mark.behaviour("storage:workflows:kept")
async def test_what_a_workflow_returns_is_kept_where_it_says(machine: Machine, tmp_path: Path) -> None:
    context = await machine.run(kept_in(tmp_path), 7)
    assert context.output == {"text": LARGE, "n": 7}
    entries = [stored.entry for stored in await machine.entries(context.execution_id)]
    (end,) = [entry for entry in entries if isinstance(entry, WorkflowCompleted)]
    assert len(str(end.value)) < 500


@pytest.mark.behaviour("storage:workflows:called")
async def test_who_calls_it_as_itself_gets_the_value_and_by_name_the_reference(
    machine: Machine, tmp_path: Path
) -> None:
    code = workflow.with_options(namespace="outputs", name="asks_for_both")(asks_for_both)
    kept_in(tmp_path)
    ended = await machine.until(await machine.start(code, str(tmp_path)), "ended")
    assert ended.output == [1, "local_file"]


@pytest.mark.behaviour("storage:workflows:full")
async def test_an_output_that_cannot_be_kept_fails_the_workflow_with_the_reason(machine: Machine) -> None:
    code = workflow.with_options(namespace="outputs", name="full", output_storage=Full())(large)
    context = await machine.run(code, 1)
    assert context.has_failed
    assert "the disk is full" in (context.error or "")
