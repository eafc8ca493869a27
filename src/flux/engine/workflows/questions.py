"""What code that a journal remembers asks a person, and waits for as long as it takes."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from flux.engine.workflows.journal import Journal, journal_here
from flux.engine.workflows.place import here
from flux.errors import ExecutionSuspended, InvalidInput
from flux.events import InterruptAnswered, Question
from flux.store import interrupts


async def ask_person(
    kind: str, about: str, make: Callable[[str, str], Question], digest: str = ""
) -> tuple[Question, InterruptAnswered]:
    """Ask what `make` makes of the id of the question and of its call; the question, and its answer.

    `about` tells questions of one branch apart, together with the order in which they are asked.

    :raises InvalidInput: outside of what a journal remembers
    """
    journal, place = journal_here(), here()
    if journal is None or place is None:
        raise InvalidInput("nobody can be asked here: no journal would remember the answer")
    if journal.suspended:
        raise ExecutionSuspended
    call = place.mint(f"ask:{kind}", (about,), {})
    question = journal.asked.get(call)
    if question is None:
        question = make(interrupts.interrupt_id(journal.run.id, call, journal.stopped), call)
        await put(journal, question, kind, digest)
    shown = {"type": kind, "about": about, "id": question.id}
    return question, await journal.park(call, question.id, kind, shown, None, place.body)


async def put(journal: Journal, question: Question, kind: str, digest: str) -> None:
    """Write a question down, and make it answerable."""
    run = journal.run
    opening = interrupts.open_interrupt(
        run.scope,
        id=question.id,
        execution_id=run.id,
        call=question.call,
        kind=kind,
        payload=msgspec.to_builtins(question),
        digest=digest,
    )
    await journal.record(question, also=opening)
