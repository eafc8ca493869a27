"""Scripts of models in YAML, for examples and trials without a key: `scripted/PATH.yaml`, in the folder of a process.

A script is a list of answers, one per answer in the history; the last one goes on. An answer has `text` and
`calls`, each `{name, args}`. In a text `{results}` stands for the newest tool results, `{message}` for what was
said last.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from flux import strict_yaml
from flux.errors import DefinitionInvalid
from flux.messages import AssistantMessage, ToolResult, UserMessage, text_of
from flux.models.base import ModelRequest
from flux.models.scripted import Call, Reply

SUFFIXES = (".yaml", ".yml")
MAX_BYTES = 1_000_000


class _Answer(Struct, frozen=True, forbid_unknown_fields=True):
    text: str = ""
    calls: tuple[Call, ...] = ()
    reasoning: str = ""


def script_of(folder: Path, name: str) -> Callable[[ModelRequest], Reply]:
    """The script in a file of a folder.

    :raises DefinitionInvalid: the file is elsewhere, cannot be read, or is no script
    """
    try:
        answers = msgspec.convert(strict_yaml.load(_text(folder, name)), tuple[_Answer, ...])
    except OSError as error:
        raise DefinitionInvalid(f"the script {name}: {error.strerror or error}") from error
    except (ValueError, msgspec.ValidationError) as error:
        raise DefinitionInvalid(f"the script {name}: {' '.join(str(error).split())}") from error
    if not answers:
        raise DefinitionInvalid(f"the script {name} holds no answers")

    def turn(request: ModelRequest) -> Reply:
        given = sum(isinstance(message, AssistantMessage) for message in request.messages)
        answer = answers[min(given, len(answers) - 1)]
        return Reply(_filled(answer.text, request), answer.calls, answer.reasoning)

    return turn


def _text(folder: Path, name: str) -> str:
    """What a file of the folder holds; a caller from outside learns nothing of any other file."""
    path, inside = Path(os.path.realpath(folder / name)), Path(os.path.realpath(folder))
    if not path.is_relative_to(inside):
        raise ValueError("it must be in the directory of this process")
    if not path.is_file():
        raise FileNotFoundError(2, "there is no such file in the directory of this process")
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
    return data.decode()


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
