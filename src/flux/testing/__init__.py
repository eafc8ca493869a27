"""For tests of agents: scripted models, a process that dies at a chosen commit, and a count of effects.

`open_process(..., factories={"test": lambda name: ScriptedModel([Reply("Hello.")])})` gives the model
`test/any` to definitions.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

import msgspec
from msgspec import Struct

from flux.models.scripted import Call, Reply, ScriptedModel

__all__ = ["Call", "CrashAt", "Effect", "EffectCounter", "Moment", "Reply", "ScriptedModel", "kill_self"]

Moment = Literal["before", "after"]

#: The variable read by `CrashAt.from_environment`, such as `before:3`.
CRASH_AT = "FLUX_TEST_CRASH_AT"


class CrashAt:
    """A commit observer that kills its process with SIGKILL `before` or `after` its n-th commit.

    `n` counts from 1; None never kills, and only counts. `commits` is how many were begun.
    """

    def __init__(self, n: int | None = None, moment: Moment = "before") -> None:
        self.commits = 0
        self._n = n
        self._moment = moment

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> CrashAt:
        """The crash that FLUX_TEST_CRASH_AT asks for, as MOMENT:N; without it only a count.

        :raises ValueError: it has another form
        """
        text = environment.get(CRASH_AT)
        if not text:
            return cls()
        moment, _, n = text.partition(":")
        if moment not in get_args(Moment) or not n.isdigit() or int(n) < 1:
            raise ValueError(f"{CRASH_AT} must read before:N or after:N with N >= 1, not {text!r}")
        return cls(int(n), msgspec.convert(moment, Moment))

    def before(self) -> None:
        """A transaction is complete but not committed."""
        self.commits += 1
        self._crash_if("before")

    def after(self) -> None:
        """The transaction is durable."""
        self._crash_if("after")

    def _crash_if(self, moment: Moment) -> None:
        if self.commits == self._n and self._moment == moment:
            kill_self()


def kill_self() -> NoReturn:
    """End this process at once, as a power cut or the kernel would: no handler runs, no buffer is written."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a process outlived its SIGKILL")


class Effect(Struct, frozen=True):
    """One effect as it was counted; `detail` is JSON."""

    name: str
    process: int
    detail: dict[str, Any] = {}


class EffectCounter:
    """Counts what tools and models really did, in a file that survives the process.

    Each effect is one line, on disk before `add` returns; any number of processes may write. Without `sync` it
    outlives the process, but not the power.
    """

    def __init__(self, path: Path, *, sync: bool = True) -> None:
        self._path = path
        self._sync = sync

    def add(self, name: str, **detail: Any) -> None:
        """Count an effect; `detail` must be JSON."""
        line = msgspec.json.encode(Effect(name, os.getpid(), detail)) + b"\n"
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, line)
            if self._sync:
                os.fsync(file)
        finally:
            os.close(file)

    def read(self) -> list[Effect]:
        """Every effect so far, in order; a line that a crash cut short did not happen."""
        try:
            text = self._path.read_bytes()
        except FileNotFoundError:
            return []
        return [msgspec.json.decode(line, type=Effect) for line in text.split(b"\n")[:-1] if line]

    def count(self, name: str, **detail: Any) -> int:
        """How often an effect of this name, and with these details, happened."""
        wanted = detail.items()
        return sum(effect.name == name and wanted <= effect.detail.items() for effect in self.read())
