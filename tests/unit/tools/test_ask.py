from pathlib import Path

import pytest

from flux.sandboxes.host import LocalSandbox
from flux.tools.ask import ask_tool
from flux.tools.base import Answer, Done, Failed, NeedsInput, ToolContext, ToolOutcome


async def ask(tmp_path: Path, answer: Answer | None) -> ToolOutcome:
    context = ToolContext(
        "s", "c", LocalSandbox(tmp_path, {}), output=lambda text: None, answers=(answer,) if answer else ()
    )
    return await ask_tool().run({"question": "Which?", "options": ["a", "b"]}, context)


@pytest.mark.behaviour("tools:ask:question")
async def test_a_question_is_asked_and_its_answer_is_the_result(tmp_path: Path) -> None:
    asked = NeedsInput("input", {"question": "Which?", "options": ["a", "b"]})
    assert await ask(tmp_path, None) == asked
    assert await ask(tmp_path, Answer("answer", "b")) == Done("b")
    assert await ask(tmp_path, Answer("answer", {"é": 1})) == Done('{"é": 1}')
    assert await ask(tmp_path, Answer("cancel")) == Failed("the question was not answered: cancel")
