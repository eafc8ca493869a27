"""Agents that talk by a workflow of their own, for the tests of their sessions."""

import itertools
from typing import Any

from flux.models.base import Model
from tests.integration.server.models import says
from tests.integration.server.serving import Served
from tests.integration.server.streams import history

SOURCE = '''\
import asyncio
from flux import call, pause, task, workflow
from flux.agents.types import ChatResponseOutput, SessionEndOutput
from flux.tasks import parallel, progress, sleep
from flux.tasks.ai import agent

def asked(given):
    return f"You said {given['message']}."

@task
async def shout(text):
    return text.upper()

@task
async def holds(text):
    await asyncio.Event().wait()

@task.with_options(requires_approval=True)
async def pay(amount):
    return f"paid {amount}"

@workflow.with_options(namespace="agents"AFFINITY)
async def talk(ctx):
    """Repeats, and does what it is told."""
    turn, said = 0, None
    given = await pause("turn", output=ChatResponseOutput(content=GREETING, turn=0))
    while True:
        turn += 1
        match given["message"].split():
            case ["bye"]:
                await pause("end", output=SessionEndOutput(reason="user_exit", turns=turn))
                raise AssertionError("it went on after its end")
            case ["done"]:
                return {"turns": turn, "agent": ctx.input["agent"]}
            case ["fail"]:
                raise ValueError("no more of this")
            case ["hold"]:
                await holds(given["message"])
            case ["ask"]:
                said = await agent("Be brief.", model=MODEL)
                said = await said(given["message"])
            case ["login"]:
                said = str(await pause("login", output={
                    "type": "elicitation", "elicitation_id": "el-1", "url": "https://example.org/login",
                    "message": "Log in", "server_name": "shop", "mode": "url"}))
            case ["form"]:
                said = str(await pause("form", output={"type": "form", "fields": ["name"]}))
            case ["pay", amount]:
                said = await pay(amount)
            case _:
                said = await shout(given["message"])
        answer = ChatResponseOutput(content=said, turn=turn)
        given = await pause("turn", output=answer)
'''

_names = itertools.count()


def source(model: str = "scripted/echo", greeting: Any = None, affinity: str = "") -> str:
    """The file of such an agent."""
    text = SOURCE.replace("GREETING", repr(greeting)).replace("MODEL", repr(model))
    return text.replace("AFFINITY", affinity)


async def talker(served: Served, greeting: Any = None, model: Model | None = None, **fields: Any) -> str:
    """A new agent that talks so; its name."""
    name = f"talker{next(_names)}"
    served.models[name] = model or says("hi")
    file = {"name": "talk.py", "source": source(f"test/{name}", greeting)}
    await served.client.post("/agents", {"name": name, "model": f"test/{name}", "workflow_file": file} | fields)
    return name


async def greeted(served: Served, **more: Any) -> str:
    """The id of a session of such an agent that waits for its first message."""
    session = await served.client.start_session(await talker(served, "Welcome!", **more))
    await history(served.client, session.id)
    return session.id
