"""What a session can be told to do from outside: answer a message, or summarise its history."""

from __future__ import annotations

import uuid
from typing import Any

from msgspec import Struct

from flux.events import CompactRequested, Mode, UserSaid
from flux.messages import TextPart, UserPart


class NewMessage(Struct, frozen=True):
    """A message to admit. `options` are those of its run, `beside` are images and files that stand beside the text."""

    text: str
    mode: Mode = "queue"
    options: dict[str, Any] = {}
    beside: tuple[UserPart, ...] = ()

    def entry(self, by: str) -> UserSaid:
        """It in the log, under a new id."""
        parts = (TextPart(self.text), *self.beside)
        return UserSaid(id=str(uuid.uuid4()), mode=self.mode, parts=parts, options=self.options)


class NewCompaction(Struct, frozen=True, tag=True):
    """A request to summarise the history, which a session that works on something else refuses."""

    text: str = ""
    mode: Mode = "reject"

    def entry(self, by: str) -> CompactRequested:
        """It in the log, under a new id."""
        return CompactRequested(id=str(uuid.uuid4()), by=by)


class NewSession(Struct, frozen=True):
    """A session to start. `instance` None: a fresh one; `workspace` None: the worker's own directory.

    `source_version` is that of the workflow that talks in it; None: the loop of agents does.
    """

    agent: str
    definition_digest: str
    agent_version: int | None = None
    instance: str | None = None
    name: str = "default"
    workspace: str | None = None
    pool: str = "default"
    requests: str | None = None
    source_version: int | None = None


class NewWorkflow(Struct, frozen=True, kw_only=True):
    """An execution of a workflow to start. `workflow` is "namespace/name", `input` in the form of `encode_value`.

    `source_version` None: code of the process that starts it. `requests` is the JSON of a ResourceRequest.
    `id` None: a fresh one; one that exists already is left as it is.
    """

    workflow: str
    source_version: int | None = None
    input: Any = None
    pool: str = "default"
    requests: str | None = None
    id: str | None = None
    parent: str | None = None
