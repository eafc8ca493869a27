"""Agents in workflows whose answers have a format."""

from typing import Any

import pytest
from pydantic import BaseModel

from flux import ExecutionContext, pause, workflow
from flux.models.scripted import Reply
from flux.tasks.ai import agent
from tests.integration.workflows.test_agents import Lab, lab

__all__ = ["lab"]


class Mood(BaseModel):
    """How somebody feels."""

    label: str
    score: float


@workflow.with_options(namespace="inline")
async def judges(ctx: ExecutionContext[Any]) -> Any:
    """An agent whose answers have a format, and a pause behind it."""
    judge = await agent("Judge.", model="test/main", name="judge", response_format=Mood)
    found: Mood = await judge("me")
    await pause("look")
    return [type(found).__name__, found.label, found.score]


@pytest.mark.behaviour("inline:output:instance")
async def test_an_answer_with_a_format_is_an_instance_also_after_recovery(lab: Lab) -> None:
    model = lab.script("main", Reply('{"label": "fine", "score": 0.5}'))
    context = await lab.machine.run(judges)
    assert context.is_paused
    await lab.machine.resume(context.execution_id)
    context = await lab.machine.until(context.execution_id, "ended")
    assert context.error is None
    assert context.output == ["Mood", "fine", 0.5]
    (request,) = model.requests
    assert request.output is not None
    assert request.output.name == "Mood"


@pytest.mark.behaviour("inline:output:corrected")
async def test_an_answer_that_does_not_fit_is_corrected_by_the_model(lab: Lab) -> None:
    model = lab.script("main", Reply('{"label": "fine"}'), Reply("fine, 1"), Reply('{"label": "fine", "score": 1}'))
    context = await lab.machine.run(judges)
    assert context.is_paused
    said = [part.text for request in model.requests for part in request.messages[-1].parts]  # type: ignore[union-attr]
    assert said[0] == "me"
    assert "score" in said[1]
    assert len(said) == 3


@pytest.mark.behaviour("inline:output:given-up")
async def test_after_three_answers_that_do_not_fit_the_task_fails(lab: Lab) -> None:
    model = lab.script("main", Reply("no"))
    context = await lab.machine.run(judges)
    assert context.has_failed
    assert context.error is not None
    assert "the agent judge gave no fitting answer" in context.error
    assert len(model.requests) == 3
