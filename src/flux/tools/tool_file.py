"""A Python file of tools, as it is stored in the definition of an agent."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_SOURCE = 1_000_000
"""Characters of a file."""


class ToolFile(BaseModel):
    """Its name, for messages, and its text. Every top-level `@task` function in it is a tool."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=255)
    source: str = Field(min_length=1, max_length=MAX_SOURCE)

    @model_validator(mode="before")
    @classmethod
    def _no_path(cls, given: Any) -> Any:
        if isinstance(given, str):
            raise ValueError("what is stored is a name and a text, {name, source}; `flux agent create` reads a path")
        return given

    @cached_property
    def digest(self) -> str:
        """The identity of its text."""
        return hashlib.sha256(self.source.encode()).hexdigest()[:32]
