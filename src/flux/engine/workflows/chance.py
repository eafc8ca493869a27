"""What differs each time it is asked, remembered: the same again when the workflow goes on."""

from __future__ import annotations

import random
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TypeVar

from flux.engine.workflows.task import task

T = TypeVar("T")


@task
async def now() -> datetime:
    """The present time, in UTC."""
    return datetime.now(UTC)


@task
async def uuid4() -> uuid.UUID:
    """A random UUID."""
    return uuid.uuid4()


@task
async def choice(options: Sequence[T]) -> T:
    """One of the options."""
    return random.choice(options)  # noqa: S311 - chance, not a secret


@task
async def randint(a: int, b: int) -> int:
    """A number from a to b, both included."""
    return random.randint(a, b)  # noqa: S311 - chance, not a secret


@task
async def randrange(start: int, stop: int | None = None, step: int = 1) -> int:
    """A number of a range, as `random.randrange` takes it."""
    return random.randrange(start, stop, step)  # noqa: S311 - chance, not a secret
