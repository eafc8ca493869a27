"""Where tools act: `virtual`, `local` and `isolated` make sandboxes; `Sandbox` is what one must do."""

from __future__ import annotations

from flux.sandboxes.base import FileStat, Sandbox, SandboxFactory, ShellResult
from flux.sandboxes.factories import local, virtual
from flux.sandboxes.verbs import Files

__all__ = ["FileStat", "Files", "Sandbox", "SandboxFactory", "ShellResult", "local", "virtual"]
