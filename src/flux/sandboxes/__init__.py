"""Where tools act: `virtual`, `local` and `isolated` make sandboxes; `Sandbox` is what one must do."""

from __future__ import annotations

from flux.sandboxes.base import FileStat, Sandbox, SandboxFactory, ShellResult
from flux.sandboxes.factories import isolated, local, virtual
from flux.sandboxes.limits import Limits
from flux.sandboxes.verbs import Files

__all__ = ["FileStat", "Files", "Limits", "Sandbox", "SandboxFactory", "ShellResult", "isolated", "local", "virtual"]
