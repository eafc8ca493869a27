"""A plan in a real terminal: reviewed, edited, rejected, and worked by."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from flux.models.scripted import Call, Reply
from tests.acceptance.terminal.conftest import Open
from tests.acceptance.terminal.test_conversation import Person, client, talk


@pytest.mark.behaviour("terminal:plan:review")
def test_a_plan_is_edited_approved_and_worked_by(open_chat: Open) -> None:
    chat = open_chat(columns=100, lines=50)
    chat.at_prompt()
    chat.say("plan")
    shown = chat.until("[a]pprove [e]dit [r]eject")
    assert "A plan to review" in shown
    assert "1. look: List what is in this folder." in shown
    chat.type("e")
    chat.until("Enter when done")
    chat.say("+ paint")
    chat.until("4. paint")
    chat.say("")
    chat.until(lambda shown: shown.count("[a]pprove [e]dit [r]eject") == 2)
    chat.type("a")
    shown = chat.at_prompt(2)
    assert "Calling create_plan(" in shown
    assert "1. look: List what is in this folder. [done]" in shown
    assert "4. paint [done]" in shown
    assert "Every step of the plan is done." in shown


@pytest.mark.behaviour("terminal:plan:review")
def test_a_plan_is_rejected_with_a_reason_after_a_restart(open_chat: Open) -> None:
    chat = open_chat(columns=100, lines=50)
    session = chat.at_prompt().split("Session: ")[1].split()[0]
    chat.say("plan")
    chat.until("[a]pprove [e]dit [r]eject")
    chat.type("\x04")
    assert chat.exit_code() == 0
    again = open_chat("--session", session, columns=100, lines=50)
    again.until("[a]pprove [e]dit [r]eject")
    again.type("r")
    again.until("Reason")
    again.say("too short")
    shown = again.at_prompt()
    assert "Denied." in shown
    assert "rejected by a person: too short" in shown


@pytest.mark.behaviour("terminal:plan:review")
async def test_a_plan_that_was_edited_into_none_is_asked_about_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Editor(Person):
        keys = iter("ear")

        async def key(self, *given: Any, **more: Any) -> str:
            return next(self.keys)

    script = (Reply(calls=(Call("create_plan", {"steps": [{"name": "only"}]}),)), Reply("Good."))
    monkeypatch.setattr("tests.acceptance.terminal.test_conversation.SCRIPT", script)
    async with client(tmp_path) as opened:
        agent = {"model": "scripted/x", "planning": True, "approve_plan": True}
        await opened.put("/agents/helper", agent)
        session = await opened.start_session("helper")
        shown = await asyncio.wait_for(talk(opened, session.id, Editor("go", "-1", "", "no")), 20)
    assert "Error: a plan needs at least one step that is not done yet\n" in shown
    assert shown.count("A plan to review") == 2
    assert "Denied." in shown
