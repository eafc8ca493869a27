"""Tasks that a person must approve before they run."""

from __future__ import annotations

import inspect
from typing import Any

from flux.engine.encoding.values import json_value
from flux.engine.workflows.journal import Journal
from flux.engine.workflows.options import Called
from flux.engine.workflows.place import Body
from flux.engine.workflows.questions import put
from flux.errors import ApprovalRejected
from flux.events import ApprovalRequired
from flux.store import interrupts


async def ask(journal: Journal, body: Body, called: Called) -> None:
    """Return when the call may run.

    :raises ApprovalRejected: a person rejected it
    """
    question = journal.asked.get(body.call)
    if question is None:
        if body.call in journal.started or not await _needed(journal, called):
            return
        question = await _open(journal, body, called)
    shown = {"type": "approval_required", "task": called.name, "args": question.args, "id": question.id}
    answer = await journal.park(body.call, question.id, "approval", shown, None, body)
    if answer.decision != "approve":
        reason = f": {answer.reason}" if answer.reason else ""
        raise ApprovalRejected(f"{called.name} was rejected by {answer.by}{reason}")


async def _needed(journal: Journal, called: Called) -> bool:
    rule = called.options.requires_approval
    if callable(rule):
        verdict = rule(**called.arguments)
        if not (await verdict if inspect.isawaitable(verdict) else verdict):
            return False
    run = journal.run
    return called.name not in await journal.outside(run.database.read(interrupts.grants(run.scope, run.id)))


async def _open(journal: Journal, body: Body, called: Called) -> ApprovalRequired:
    run = journal.run
    args: dict[str, Any] = json_value(dict(called.arguments))
    question = ApprovalRequired(
        id=interrupts.interrupt_id(run.id, body.call, journal.stopped),
        call=body.call,
        agent=run.execution.agent or "" if journal.within is not None else "",
        tool=called.name,
        args=args,
        digest=interrupts.digest_of(called.name, args),
        reason=f"{called.name} requires approval",
        within=journal.within,
    )
    await put(journal, question, "approval", question.digest)
    return question
