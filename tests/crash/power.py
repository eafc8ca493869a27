"""Power cuts: a process is killed, and of its SQLite database only what was synced is left."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("disk.c")


def build_disk(compiler: str, folder: Path) -> Path:
    """The library that keeps what is synced, to be preloaded into the processes that lose power."""
    library = folder / "disk.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, SOURCE, "-ldl"], check=True)
    return library


def cut_power(home: Path) -> None:
    """Leave of a dead process's database what was on disk; the shared memory beside it is gone anyway."""
    folder = home / "flux"
    for path in folder.glob("flux.db*"):
        path.unlink()
    for path in (folder / "disk").iterdir():
        shutil.copy(path, folder / path.name)
