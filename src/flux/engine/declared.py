"""The workflows that the code of this process has declared, by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class Declared(Protocol):
    """A workflow as code declares it."""

    @property
    def qualified_name(self) -> str:
        """ "namespace/name"."""
        ...

    @property
    def secret_requests(self) -> Sequence[str]:
        """The secrets that its function is given."""
        ...

    async def __call__(self, ctx: Any, **given: Any) -> Any:
        """Run its function."""
        ...


_declared: dict[str, Declared] = {}


def add(workflow: Declared) -> None:
    """Remember a workflow; the newest of a name counts."""
    _declared[workflow.qualified_name] = workflow


def find(qualified_name: str) -> Declared | None:
    """The workflow of a name."""
    return _declared.get(qualified_name)
