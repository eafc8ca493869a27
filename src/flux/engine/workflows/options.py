"""What can be said of a task, and one call of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypedDict

from msgspec import Struct

from flux.engine.workflows.storage import OutputStorage

Function = Callable[..., Any]


class TaskOptions(Struct, frozen=True, kw_only=True):
    """How a task is called. Delays and timeouts in seconds; a timeout of 0 is none.

    `effect` "once": never run again when its worker stopped meanwhile. `requires_approval` may be a function
    of the call's arguments. A name may hold fields: "pay_{order_id}".
    """

    name: str | None = None
    retry_max_attempts: int = 0
    retry_delay: float = 1
    retry_backoff: float = 2
    timeout: float = 0
    fallback: Function | None = None
    rollback: Function | None = None
    cache: bool = False
    metadata: bool = False
    secret_requests: Sequence[str] = ()
    config_requests: Sequence[str] = ()
    output_storage: OutputStorage | None = None
    effect: str | None = None
    requires_approval: bool | Function = False


class TaskWords(TypedDict, total=False):
    """The options of a task as keywords, for type checkers; TaskOptions says what they mean."""

    name: str | None
    retry_max_attempts: int
    retry_delay: float
    retry_backoff: float
    timeout: float | timedelta
    fallback: Function | None
    rollback: Function | None
    cache: bool
    metadata: bool
    secret_requests: Sequence[str]
    config_requests: Sequence[str]
    output_storage: OutputStorage | None
    effect: str | None
    requires_approval: bool | Function


class TaskMetadata(Struct, frozen=True):
    """What a task that asked for `metadata` gets: the id of its call, and its name."""

    task_id: str
    task_name: str


class Called(Struct, frozen=True):
    """A call of a task: `arguments` are `args` and `kwargs` by their names."""

    name: str
    function: Function
    options: TaskOptions
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    arguments: Mapping[str, Any]
