"""The workflows that the code of this process has declared, by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from flux.engine.workflows.storage import OutputStorage


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

    @property
    def output_storage(self) -> OutputStorage | None:
        """Where what it returns is kept; None: in the log."""
        ...

    async def __call__(self, ctx: Any, **given: Any) -> Any:
        """Run its function."""
        ...


_declared: dict[str, Declared] = {}


#: What the modules of registered sources are called: their workflows are found through the catalogue.
SOURCE_PREFIX = "flux_source_"


def add(workflow: Declared) -> None:
    """Remember a workflow of this program; the newest of a name counts."""
    if not str(getattr(workflow, "__module__", "")).startswith(SOURCE_PREFIX):
        _declared[workflow.qualified_name] = workflow


def find(qualified_name: str) -> Declared | None:
    """The workflow of a name."""
    return _declared.get(qualified_name)
