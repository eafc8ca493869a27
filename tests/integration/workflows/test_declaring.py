"""What a person sees whose workflow is wrong, or fails."""

import logging
from pathlib import Path
from typing import Any

import pytest

from flux import ExecutionContext, workflow
from flux.errors import InvalidInput

pytestmark = pytest.mark.behaviour("workflows:script:tells")


@workflow
async def halved(ctx: ExecutionContext[int]) -> float:
    return 1 / ctx.input


def test_a_failure_of_a_script_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FLUX_HOME", str(tmp_path))
    with caplog.at_level(logging.WARNING, "flux"):
        assert halved.run(2).output == 0.5
        assert not caplog.messages
        context = halved.run(0)
    assert "workflow default/halved failed: ZeroDivisionError: division by zero" in caplog.messages[0]
    assert repr(context) == f"<ExecutionContext of default/halved: FAILED, id {context.execution_id}>"


def test_a_function_that_cannot_be_a_workflow_is_refused_where_it_stands() -> None:
    def plain(ctx: ExecutionContext[Any]) -> int:
        return 1

    async def without() -> int:
        return 1

    with pytest.raises(InvalidInput, match="must be an async function: write `async def plain`"):
        workflow(plain)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=r"must take its context: `async def without\(ctx\)`"):
        workflow(without)
