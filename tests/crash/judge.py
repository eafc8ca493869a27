"""Holds a home after recovery against the durability contract: the log, the effects, and the model calls."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

from msgspec import Struct

from flux.agents.history.prompt import build
from flux.agents.history.transcript import Transcript
from flux.events import (
    RUN_ENDS,
    AssistantSaid,
    Cancelled,
    Entry,
    Forked,
    RunStarted,
    Stored,
    ToolDone,
    ToolStarted,
    UserSaid,
)
from flux.store import executions, interrupts, log
from flux.store.database import LOCAL, one
from flux.store.executions import Execution
from flux.store.interrupts import Interrupt
from flux.store.opening import open_database
from flux.testing import Effect, EffectCounter

ONCE = ("pay", "wipe")
READ_AGAIN = ("look", "note")


class Found(Struct, frozen=True):
    """A session as it stands in the database."""

    row: Execution
    log: list[Stored]
    questions: list[Interrupt]

    def entries(self, kind: type[Any]) -> list[Any]:
        """The entries of a type, in order."""
        return [stored.entry for stored in self.log if isinstance(stored.entry, kind)]

    def done(self) -> dict[tuple[str, int], ToolDone]:
        """The result of each call, by the tool and its argument `n`."""
        results = {done.call: done for done in self.entries(ToolDone)}
        calls = [call for said in self.entries(AssistantSaid) for call in said.calls]
        return {(call.name, call.args["n"]): results[call.id] for call in calls if call.id in results}


def sessions(home: Path, database: str = "") -> list[Found]:
    """Every session of a home, from its database."""
    return asyncio.run(_sessions(database or f"sqlite:///{home / 'flux' / 'flux.db'}"))


def session(home: Path, database: str = "") -> Found:
    """The one session of a home."""
    (found,) = sessions(home, database)
    return found


async def _sessions(url: str) -> list[Found]:
    database = await open_database(url)
    try:
        rows = await database.read(executions.list_sessions(LOCAL, limit=10_000))
        return [
            Found(
                row,
                [stored.stored() for stored in await database.read(log.read(LOCAL, row.id))],
                await database.read(interrupts.list_open(LOCAL, row.id)),
            )
            for row in rows
        ]
    finally:
        await database.close()


def children(home: Path, database: str = "") -> list[list[Entry]]:
    """The logs of the sessions that others drive."""
    return asyncio.run(_children(database or f"sqlite:///{home / 'flux' / 'flux.db'}"))


async def _children(url: str) -> list[list[Entry]]:
    database = await open_database(url)
    try:
        rows = await database.read(one("select id from executions where driver is not null"))
        logs = [await database.read(log.load(LOCAL, row[0])) for row in rows]
        return [[stored.entry for stored in stored_log if isinstance(stored.entry, Entry)] for stored_log in logs]
    finally:
        await database.close()


def effects(home: Path) -> list[Effect]:
    """What the tools really did."""
    return EffectCounter(home / "effects").read()


def calls(home: Path) -> list[Effect]:
    """What the models were asked, and what the scenarios noted."""
    return EffectCounter(home / "calls").read()


def faults(found: Found) -> list[str]:
    """What is wrong with a session at rest; empty when it is as it must be."""
    wrong = [] if found.row.state in ("idle", "ended") else [f"the session is {found.row.state}"]
    wrong += log_faults([stored.entry for stored in found.log if isinstance(stored.entry, Entry)])
    if [stored.seq for stored in found.log] != list(range(1, found.row.head + 1)):
        wrong.append("the seqs have gaps")
    if found.questions:
        wrong.append(f"{len(found.questions)} questions are still open")
    if found.row.run_id is not None:
        wrong.append("the row still has a run")
    build(Transcript().extend(found.log).items)  # raises PromptBroken
    return wrong


def log_faults(entries: list[Entry]) -> list[str]:
    """What is wrong with the log of a session at rest."""
    said = [entry.id for entry in entries if isinstance(entry, UserSaid)]
    consumed = Counter(
        id for entry in entries if isinstance(entry, (RunStarted, AssistantSaid, Cancelled)) for id in entry.inputs
    )
    consumed.update(id for entry in entries if isinstance(entry, Forked) for id in entry.dropped)
    wrong = [f"message {id} was consumed {consumed[id]} times" for id in said if consumed[id] != 1]
    results = Counter(entry.call for entry in entries if isinstance(entry, ToolDone))
    wrong += [f"call {call} has {count} results" for call, count in results.items() if count > 1]
    asked = [call.id for entry in entries if isinstance(entry, AssistantSaid) for call in entry.calls]
    wrong += [f"a result for the unknown call {call}" for call in results if call not in asked]
    wrong += [f"call {call} has no result" for call in asked if call not in results]
    answers = Counter(entry.message_id for entry in entries if isinstance(entry, AssistantSaid))
    wrong += [f"answer {id} stands {count} times" for id, count in answers.items() if count > 1]
    return wrong + _run_faults(entries)


def _run_faults(entries: list[Entry]) -> list[str]:
    wrong: list[str] = []
    runs: list[str] = []
    running = False
    for entry in entries:
        if isinstance(entry, RunStarted):
            wrong += ["a run began inside a run"] if running else []
            running = True
            runs.append(entry.run)
        elif isinstance(entry, RUN_ENDS):
            wrong += [] if running else ["a run ended that had not begun"]
            running = False
    wrong += ["a run has no end"] if running else []
    return wrong + ["a run id was used twice"] * (len(runs) - len(set(runs)))


def recovery_faults(home: Path, crashed: Found | None, found: Found) -> list[str]:
    """What was lost or repeated between the state at the crash and the state at rest."""
    return _effect_faults(home, found) + (_repeated(home, crashed, found) if crashed else [])


def _effect_faults(home: Path, found: Found) -> list[str]:
    """The log tells the truth about each effect, and no `once` effect happened twice."""
    happened: Counter[tuple[str, int]] = Counter((effect.name, effect.detail["n"]) for effect in effects(home))
    wrong = [f"{key} took effect {count} times" for key, count in happened.items() if key[0] in ONCE and count > 1]
    for key, done in found.done().items():
        if done.outcome == "success" and not happened[key]:
            wrong.append(f"{key} is said to be done, and is not")
        if done.outcome not in ("success", "interrupted") or (done.outcome == "interrupted" and key[0] not in ONCE):
            wrong.append(f"{key} ended as {done.outcome}")
    keys = {(e.detail["n"], e.detail["call"]) for e in effects(home) if e.name == "note"}
    return wrong + ["an idempotent call was repeated under another id"] * (len(keys) - len({n for n, _ in keys}))


def _repeated(home: Path, crashed: Found, found: Found) -> list[str]:
    wrong: list[str] = []
    if found.log[: len(crashed.log)] != crashed.log:
        wrong.append("what was in the log at the crash has changed")
    processes = list(dict.fromkeys(effect.process for effect in calls(home)))
    answered = len(crashed.entries(AssistantSaid))
    later = [call for call in calls(home) if call.name == "model" and call.process == processes[-1]]
    if len(processes) > 1:
        wrong += [f"model call {c.detail['turn']} was made again" for c in later if c.detail["turn"] < answered]
    wrong += [f"a prompt was broken: {c.detail['problem']}" for c in calls(home) if c.detail.get("problem")]
    return wrong + _after_crash(home, crashed, found)


def _after_crash(home: Path, crashed: Found, found: Found) -> list[str]:
    """Calls that were in flight or done at the crash."""
    started = {entry.call: entry.name for entry in crashed.entries(ToolStarted)}
    done = {entry.call: entry for entry in crashed.entries(ToolDone)}
    after = {entry.call: entry for entry in found.entries(ToolDone)}
    wrong = [f"the result of {call} has changed" for call in done if after.get(call) != done[call]]
    in_flight = {call: name for call, name in started.items() if call not in done}
    wrong += [
        f"{name} was in flight, and is said to be {after[call].outcome}"
        for call, name in in_flight.items()
        if name in ONCE and after[call].outcome != "interrupted"
    ]
    again = [entry.call for entry in found.entries(ToolStarted)][len(started) :]
    return wrong + [f"{done[call].name} ran again after its result" for call in again if call in done]
