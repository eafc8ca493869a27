"""What a process does before it is killed whose agent talks by a workflow, and what must be true afterwards."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from flux.agents.define.definition import define
from flux.engine.intake.answers import Decision
from flux.engine.intake.inputs import NewMessage
from flux.events import ChatResponse, InterruptAnswered, SessionEndedEntry
from flux.store.database import LOCAL
from tests.crash import flow_judge, flows, judge, talk
from tests.crash.stage import Stage

SAID = ("pay 1", "pay 2", "login")
TALKER = {"name": "talker", "model": "crash/test"}


async def conversation(stage: Stage) -> None:
    """All messages at once, an answer to what is asked, and the end."""
    async with flows.opened(stage) as process:
        file = {"name": "talk.py", "source": Path(talk.__file__).read_text()}
        await process.agents.put(LOCAL, define(TALKER | {"workflow_file": file}), create=True, update=True)
        id = (await process.sessions.start(LOCAL, "talker", instance="desk", key="first")).id
        for text in (*SAID, "bye"):
            await process.sessions.send(LOCAL, id, NewMessage(text), key=text)

        async def ended() -> bool:
            row = await process.sessions.get(LOCAL, id)
            for asked in await process.sessions.interrupts(LOCAL, id):
                await process.sessions.answer(LOCAL, id, asked.id, Decision("accept"))
            return row.state == "ended"

        await stage.until(ended)


def faults(home: Path, database: str) -> list[str]:
    """What is wrong with the conversation after its end."""
    found = flow_judge.flows(home, database)["agents/talker"]
    # The run of the last message has the end of the session for its end.
    wrong = [fault for fault in judge.log_faults(found.entries(object)) if fault != "a run has no end"]
    answers = [(entry.content, entry.turn) for entry in found.entries(ChatResponse)]
    paid = [(f"unknown {n}", n) if (f"unknown {n}", n) in answers else (f"paid {n}", n) for n in (1, 2)]
    wrong += [] if answers == [("ready", 0), *paid, ("accept", 3)] else [f"the answers are {answers}"]
    ends = [(entry.reason, entry.turns) for entry in found.entries(SessionEndedEntry)]
    wrong += [] if ends == [("user_exit", 4)] else [f"the ends are {ends}"]
    wrong += [] if len(found.entries(InterruptAnswered)) == len(SAID) + 2 else ["not one answer for each question"]
    wrong += [] if (found.row.state, found.row.turns) == ("ended", 3) else [f"the row is {found.row}"]
    wrong += [f"{len(found.questions)} questions are open"] * bool(found.questions)
    happened = Counter(effect.detail["amount"] for effect in judge.effects(home))
    return wrong + [f"{amount} was paid {n} times" for amount, n in happened.items() if n > 1]
