"""Ask the person."""

from __future__ import annotations

import json

from flux.tools.base import Done, Failed, NeedsInput, Tool, ToolContext, ToolOutcome
from flux.tools.function import tool_of


async def ask_user(context: ToolContext, question: str, options: list[str] | None = None) -> ToolOutcome:
    """Ask the person a question and wait for the answer, however long it takes.

    Args:
        question: The question, complete in itself.
        options: Answers to choose from; another answer may still come.
    """
    answer = context.answer
    if answer is None:
        return NeedsInput("input", {"question": question, "options": options or []})
    if answer.decision != "answer":
        return Failed(f"the question was not answered: {answer.decision}")
    content = answer.content
    return Done(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False))


def ask_tool() -> Tool:
    """The tool `ask_user`."""
    return tool_of(ask_user, effect="idempotent")
