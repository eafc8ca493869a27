"""Output storage for tasks and workflows: `output_storage=LocalFileStorage(...)`."""

from __future__ import annotations

from flux.engine.workflows.storage import InlineOutputStorage, LocalFileStorage, OutputStorage, OutputStorageReference

__all__ = ["InlineOutputStorage", "LocalFileStorage", "OutputStorage", "OutputStorageReference"]
