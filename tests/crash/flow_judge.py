"""Holds executions of workflows after recovery against the durability contract."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

from msgspec import Struct

from flux.engine.encoding.values import decode_value
from flux.entries.workflows import WORKFLOW_ENDS, TaskCompleted, TaskFailed, WorkflowCompleted
from flux.events import InterruptAnswered, Stored
from flux.store import executions, interrupts, log
from flux.store.database import LOCAL, Database, one
from flux.store.executions import Execution
from flux.store.interrupts import Interrupt
from flux.store.opening import open_database
from flux.testing import Effect
from tests.crash.flows import ANSWER
from tests.crash.judge import effects
from tests.crash.workflows import BRANCHES, STEPS, UNKNOWN

ONCE = ("pay",)
#: What a model may make happen once at most: its tools are tasks that do not say what may happen again.
ONCE_AS_TOOLS = ("pay", "wipe")
#: What each workflow returns for the input 1; `paid` may also be unknown.
LOOKED = {"looked": [2, 3]}
ALONE = {"shaky": "steady", "paid": "paid 4", "doubled": 42}
OUTPUTS: dict[str, Any] = {
    "crash/doubles": 42,
    "crash/asks": {"looked": [2, ANSWER, 3]},
    "crash/naps": LOOKED,
    "crash/calls_naps": LOOKED,
    "crash/greets": "hello",
    "crash/with_agent": {"looked": [2], "said": "All is done.", "then": 3},
    "crash/unattended": LOOKED | ALONE | {"branches": [[f"{n}.{k}" for k in range(STEPS)] for n in range(2)]},
    "crash/everything": LOOKED
    | ALONE
    | {"branches": [[f"{n}.{k}" for k in range(STEPS)] for n in range(BRANCHES)]}
    | {"answer": ANSWER, "wiped": "wiped disk"},
}


class Flow(Struct, frozen=True):
    """An execution as it stands in the database."""

    row: Execution
    log: list[Stored]
    questions: list[Interrupt]
    children: list[Stored] = []

    def entries(self, *kinds: type[Any]) -> list[Any]:
        """The entries of some types, in order."""
        return [stored.entry for stored in self.log if isinstance(stored.entry, kinds)]

    def results(self) -> dict[str, Any]:
        """The entry that ended each call."""
        return {entry.call: entry for entry in self.entries(TaskCompleted, TaskFailed)}

    @property
    def output(self) -> Any:
        """What the workflow returned; None when it did not."""
        ends = self.entries(WorkflowCompleted)
        return decode_value(ends[0].value) if ends else None


def flows(home: Path, database: str = "") -> dict[str, Flow]:
    """Every execution of a home, by its workflow."""
    return asyncio.run(_flows(database or f"sqlite:///{home / 'flux' / 'flux.db'}"))


async def _flows(url: str) -> dict[str, Flow]:
    database = await open_database(url)
    try:
        rows = await database.read(executions.list_executions(LOCAL, limit=100))
        return {
            row.workflow or "": Flow(
                row,
                await _log(database, row.id),
                await database.read(interrupts.list_open(LOCAL, row.id)),
                [stored for id in await children(database, row.id) for stored in await _log(database, id)],
            )
            for row in rows
        }
    finally:
        await database.close()


async def _log(database: Database, id: str) -> list[Stored]:
    return [stored.stored() for stored in await database.read(log.read(LOCAL, id))]


async def children(database: Database, root: str) -> list[str]:
    """The sessions that a root drives, and those that they drive."""
    rows = await database.read(one("select id from executions where root = :root and driver is not null", root=root))
    return [row[0] for row in rows]


def faults(home: Path, found: dict[str, Flow]) -> list[str]:
    """What is wrong with executions that must have ended well."""
    wrong = [f"{name}: {fault}" for name, flow in found.items() for fault in _flow_faults(name, flow)]
    happened = Counter((effect.name, effect.detail["call"]) for effect in effects(home))
    once = ONCE_AS_TOOLS if any(flow.children for flow in found.values()) else ONCE
    wrong += [f"{name} happened {n} times" for (name, _), n in happened.items() if name in once and n > 1]
    calls = {entry.call for flow in found.values() for entry in flow.entries(TaskCompleted)}
    calls |= {s.entry.call for flow in found.values() for s in flow.children if isinstance(s.entry, TaskCompleted)}
    lost = [name for name, call in happened if name not in once and call not in calls]
    return wrong + [f"{name} took effect and has no result" for name in lost]


def _flow_faults(name: str, flow: Flow) -> list[str]:
    wrong = [] if flow.row.state == "ended" else [f"it is {flow.row.state}"]
    if [stored.seq for stored in flow.log] != list(range(1, flow.row.head + 1)):
        wrong.append("the seqs have gaps")
    ends = flow.entries(*WORKFLOW_ENDS)
    if len(ends) != 1 or flow.log[-1].entry is not ends[0]:
        wrong.append(f"{len(ends)} ends, or not at the end")
    results = Counter(entry.call for entry in flow.entries(TaskCompleted, TaskFailed))
    wrong += [f"call {call} has {n} results" for call, n in results.items() if n > 1]
    answers = Counter(entry.id for entry in flow.entries(InterruptAnswered))
    wrong += [f"question {id} was answered {n} times" for id, n in answers.items() if n > 1]
    wrong += [f"{question.kind} is still open" for question in flow.questions]
    wrong += [] if _is_right(name, flow.output) else [f"it returned {flow.output}"]
    return wrong


def _is_right(name: str, output: Any) -> bool:
    expected = OUTPUTS[name]
    if isinstance(output, dict) and output.get("paid") == UNKNOWN:
        expected = expected | {"paid": UNKNOWN}
    return bool(output == expected)


def recovery_faults(crashed: dict[str, Flow], found: dict[str, Flow], later: list[Effect]) -> list[str]:
    """What was lost or repeated since the crash; `later` are the effects after it."""
    wrong: list[str] = []
    again = {effect.detail["call"]: effect.name for effect in later}
    for name, flow in crashed.items():
        after = found[name]
        if after.log[: len(flow.log)] != flow.log:
            wrong.append(f"{name}: what was in its log has changed")
        wrong += [f"{name}: {again[call]} ran again after its result" for call in flow.results() if call in again]
    return wrong
