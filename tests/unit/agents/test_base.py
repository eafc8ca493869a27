"""A log that is read from its last compaction on comes to the same as the whole of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux.agents.history import prompt
from flux.agents.history.cuts import cut
from flux.agents.history.transcript import Transcript
from flux.events import Compacted, Entry, Stored
from tests.unit.agents.logs import random_log, stored

CHOICES = st.lists(st.integers(0, 10_000), min_size=20, max_size=120)


def resumed(log: Sequence[Stored]) -> list[Stored]:
    """What the store reads of a log with compactions, as `flux.store.log.resume` says it."""
    newest = next((one for one in reversed(log) if isinstance(one.entry, Compacted) and one.entry.base), None)
    if newest is None or not isinstance(newest.entry, Compacted) or newest.entry.base is None:
        return list(log)
    upto, needs = newest.entry.upto, newest.entry.base["needs"]
    return [newest, *(one for one in log if one.seq in needs and one.seq <= upto), *log[upto:]]


def compacted(log: Sequence[Stored], keep: int) -> Compacted | None:
    """The compaction that the loop would make at the end of a log, if it may."""
    transcript = Transcript().extend(log)
    found = cut(transcript, keep)
    if found is None or (transcript.run is not None and transcript.run.open_calls):
        return None
    older = [one for n, one in enumerate(resumed(log)) if not n or one.seq <= found.upto]
    base = Transcript().extend(older).base() if found.upto else None
    return Compacted(upto=found.upto, summary="Before.", base=msgspec.json.decode(msgspec.json.encode(base)))


def with_compactions(choices: Sequence[int], places: Sequence[int], keep: int) -> list[Stored]:
    """A log as a loop could have written it that compacts at these places where it can."""
    entries: list[Entry] = []
    for n, one in enumerate(random_log(choices)):
        if isinstance(one.entry, Compacted) or not isinstance(one.entry, Entry):
            continue
        if n in places and (made := compacted(stored(entries), keep)):
            entries.append(made)
        entries.append(one.entry)
    return stored(entries)


def told(log: Transcript) -> dict[str, Any]:
    """All that a loop decides by. Of a run, what its next answer replaces does not count before the first one."""
    run = log.run
    return {
        name: getattr(log, name)
        for name in (
            "head", "epoch", "started", "context", "thawed", "plan", "marks", "definition_digest", "pending",
            "requests", "turns", "tokens", "cost", "prompt_tokens", "ended", "kept", "delegated", "counted",
        )
    } | {
        "items": [(type(item), item.seq) for item in log.items],
        "prompt": prompt.build(log.items),
        "run": run and {name: getattr(run, name) for name in run.__struct_fields__},
        "again": log.base(),
    }  # fmt: skip


@pytest.mark.behaviour("compaction:read-from-the-last")
@given(CHOICES, st.sets(st.integers(2, 120), max_size=6), st.integers(1, 60))
def test_a_log_that_is_read_from_its_last_compaction_on_comes_to_the_same(
    choices: list[int], places: set[int], keep: int
) -> None:
    log = with_compactions(choices, sorted(places), keep)
    assert told(Transcript().extend(resumed(log))) == told(Transcript().extend(log))


@pytest.mark.behaviour("compaction:read-from-the-last")
@given(CHOICES, st.sets(st.integers(2, 120), min_size=1, max_size=6), st.integers(1, 60))
def test_whatever_was_compacted_no_message_waits_in_vain_and_the_prompt_holds(
    choices: list[int], places: set[int], keep: int
) -> None:
    log = with_compactions(choices, sorted(places), keep)
    plain = Transcript().extend(stored(s.entry for s in log if isinstance(s.entry, Entry) and not _made(s)))
    found = Transcript().extend(resumed(log))
    assert list(found.pending.values()) == list(plain.pending.values())
    assert (found.turns, found.tokens, found.cost) == (plain.turns, plain.tokens, plain.cost)
    prompt.check(prompt.build(found.items))


def _made(one: Stored) -> bool:
    return isinstance(one.entry, Compacted)
