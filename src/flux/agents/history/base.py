"""What a log comes to up to a seq: from there a run goes on, without reading what is before."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from flux.store.executions import Spent


class RunBase(Struct, frozen=True, omit_defaults=True):
    """The run that is open there; the fields are those of `RunState`."""

    id: str
    inputs: tuple[str, ...]
    options: dict[str, Any]
    active_since: float
    definition_digest: str
    model_calls: int = 0
    iterations: int = 0
    tokens: int = 0
    cost: float = 0.0
    compacting: bool = False
    cancelled: bool = False
    reminded: int = 0
    repeats: dict[str, int] = {}


class Base(Struct, frozen=True, omit_defaults=True):
    """What the entries up to a seq come to, beside the conversation; the fields are those of `Transcript`.

    `needs` are the seqs of entries that are still read: the first, the frozen prompt, and inputs that no run has
    consumed. At the seq itself no call is open, and what follows is an answer, a new run, or the end of one.
    """

    needs: tuple[int, ...]
    definition_digest: str = ""
    plan: tuple[dict[str, Any], ...] = ()
    marks: dict[str, dict[str, Any]] = {}
    turns: int = 0
    tokens: int = 0
    cost: float = 0.0
    kept: bool = False
    delegated: dict[str, str] = {}
    counted: dict[str, Spent] = {}
    cancels: tuple[str, ...] = ()
    run: RunBase | None = None
