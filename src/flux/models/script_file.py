"""Scripts of models in YAML, for examples and trials without a key: `scripted/PATH.yaml`.

A script is a list of answers, one per answer in the history; the last one goes on. An answer has `text` and
`calls`, each `{name, args}`. In a text `{results}` stands for the newest tool results, `{message}` for what was
said last.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import yaml
from msgspec import Struct

from flux.errors import DefinitionInvalid
from flux.messages import AssistantMessage, ToolResult, UserMessage, text_of
from flux.models.base import ModelRequest
from flux.models.scripted import Call, Reply

SUFFIXES = (".yaml", ".yml")


class _Answer(Struct, frozen=True, forbid_unknown_fields=True):
    text: str = ""
    calls: tuple[Call, ...] = ()
    reasoning: str = ""


def script_of(path: Path) -> Callable[[ModelRequest], Reply]:
    """The script in a file.

    :raises DefinitionInvalid: the file cannot be read, or is no script
    """
    try:
        answers = msgspec.convert(yaml.safe_load(path.read_text()), tuple[_Answer, ...])
    except OSError as error:
        raise DefinitionInvalid(f"the script {path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise DefinitionInvalid(f"the script {path}: {' '.join(str(error).split())}") from error
    if not answers:
        raise DefinitionInvalid(f"the script {path} holds no answers")

    def turn(request: ModelRequest) -> Reply:
        given = sum(isinstance(message, AssistantMessage) for message in request.messages)
        answer = answers[min(given, len(answers) - 1)]
        return Reply(_filled(answer.text, request), answer.calls, answer.reasoning)

    return turn


def _filled(text: str, request: ModelRequest) -> str:
    results: list[str] = []
    for message in reversed(request.messages):
        if not isinstance(message, ToolResult):
            break
        results.insert(0, message.content)
    said = (text_of(message.parts) for message in reversed(request.messages) if isinstance(message, UserMessage))
    values: dict[str, Any] = {"{results}": "\n".join(results), "{message}": next(said, "")}
    for name, value in values.items():
        text = text.replace(name, value)
    return text
