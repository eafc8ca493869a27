"""Deltas: ephemeral pieces of entries to come, as events are told apart by `type`."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
from msgspec import Struct


class Token(Struct, frozen=True, tag_field="type", tag="token"):
    """A piece of an answer's visible text."""

    message_id: str
    attempt: int
    text: str


class Reasoning(Struct, frozen=True, tag_field="type", tag="reasoning"):
    """A piece of an answer's reasoning."""

    message_id: str
    attempt: int
    text: str


class ToolOutput(Struct, frozen=True, tag_field="type", tag="tool_output"):
    """A piece of what a running tool prints."""

    call: str
    text: str


class Progress(Struct, frozen=True, tag_field="type", tag="progress"):
    """A value a running task or tool reports."""

    call: str
    value: Any
    name: str = ""


class SubagentDelta(Struct, frozen=True, tag_field="type", tag="subagent_delta"):
    """What a child session shows, to the readers of the one that drives it."""

    call: str
    session: str
    event: Token | Reasoning | ToolOutput | Progress | SubagentDelta


DeltaEvent = Token | Reasoning | ToolOutput | Progress | SubagentDelta
DELTA_TYPES: dict[str, type] = {cls.__struct_config__.tag: cls for cls in get_args(DeltaEvent)}
_delta: msgspec.json.Decoder[DeltaEvent] = msgspec.json.Decoder(DeltaEvent)


def decode_delta(body: bytes | str) -> DeltaEvent:
    """The delta of its JSON."""
    return _delta.decode(body)
