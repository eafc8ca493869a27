"""/approval and /elicitation: a person's answer, and the rest of the run that asked."""

import asyncio
import uuid
from contextlib import aclosing

import pytest

from flux.models.scripted import Call, Reply, ScriptedModel
from tests.integration.api.calling import Api, Frame, api, kinds, one, text_of
from tests.integration.server.models import Held, asks
from tests.integration.server.serving import Served

SHELL = Call("shell", {"command": "echo one"})
OTHER = Call("shell", {"command": "echo two"})
LOOK = Call("list_directory", {"path": "."})
PLAN = {"steps": [{"name": "look", "description": "Look around."}]}


async def asked(agent: Api) -> tuple[str, Frame]:
    """A session that waits, and its last question."""
    frames = await agent.chat("do it")
    return frames[0]["id"], frames[-1]


def approval_of(id: str, question: str) -> str:
    return f"/approval/{question}?session={id}"


@pytest.mark.behaviour("api:approval:approved")
@pytest.mark.parametrize("by", ["id", "call"])
async def test_an_approved_call_runs_and_the_run_is_streamed_to_its_end(served: Served, by: str) -> None:
    model = ScriptedModel([Reply("I will. ", (SHELL,)), Reply("Done.")])
    async with api(served, model, tools=["system_tools"]) as agent:
        id, question = await asked(agent)
        assert question["type"] == "approval_required"
        assert (
            question.items()
            >= {"channel": "tools", "tool": "shell", "subject": "shell", "args": {"command": "echo one"}}.items()
        )
        assert question["digest"]
        frames = await agent.post(approval_of(id, question[by]), {"approved": True, "reason": "fine"})
    assert kinds(frames) == ["session_id", "tool_start", "tool_output", "tool_done", "token", "usage", "response"]
    assert one(frames, "tool_start")["args"] == {"command": "echo one"}
    assert (text_of(frames), frames[-1]["turn"]) == ("Done.", 1)


@pytest.mark.behaviour("api:approval:rejected")
async def test_a_rejected_call_is_denied_with_the_reason(served: Served) -> None:
    model = ScriptedModel([Reply("I will. ", (SHELL,)), Reply("Then not.")])
    async with api(served, model, tools=["system_tools"]) as agent:
        id, question = await asked(agent)
        frames = await agent.post(approval_of(id, question["id"]), {"approved": False, "reason": "too loud"})
    assert (one(frames, "tool_done")["status"], one(frames, "tool_done")["outcome"]) == ("error", "denied")
    assert frames[-1]["content"] == "Then not."
    assert "too loud" in str(model.requests[-1].messages[-1])


@pytest.mark.behaviour("api:approval:several")
async def test_while_another_call_still_asks_the_stream_ends_with_that_question(served: Served) -> None:
    model = ScriptedModel([Reply("Three. ", (SHELL, LOOK, OTHER)), Reply("Done.")])
    async with api(served, model, tools=["system_tools"]) as agent:
        frames = await agent.chat("do it")
        id = frames[0]["id"]
        first, second = frames[-2:]
        assert [first["args"]["command"], second["args"]["command"]] == ["echo one", "echo two"]
        assert one(frames, "tool_done")["name"] == "list_directory"
        frames = await agent.post(approval_of(id, first["id"]), {"approved": True})
        assert one(frames, "tool_done")["outcome"] == "success"
        assert frames[-1] == second
        frames = await agent.post(approval_of(id, second["id"]), {"approved": True})
    assert one(frames, "tool_done")["outcome"] == "success"
    assert frames[-1]["content"] == "Done."


@pytest.mark.behaviour("api:approval:always")
async def test_always_is_not_asked_again(served: Served) -> None:
    model = ScriptedModel([Reply("One. ", (SHELL,)), Reply("Two. ", (OTHER,)), Reply("Done.")])
    async with api(served, model, tools=["system_tools"]) as agent:
        id, question = await asked(agent)
        frames = await agent.post(approval_of(id, question["id"]), {"approved": True, "always": True})
    assert frames[-1]["content"] == "Done."


@pytest.mark.behaviour("api:approval:plan")
async def test_a_plan_is_approved_like_a_call(served: Served) -> None:
    model = ScriptedModel([Reply("A plan. ", (Call("create_plan", PLAN),)), Reply("Planned.")])
    async with api(served, model, planning=True, approve_plan=True) as agent:
        id, question = await asked(agent)
        assert (question["type"], question["channel"]) == ("approval_required", "plans")
        assert question["args"]["steps"][0]["name"] == "look"
        frames = await agent.post(approval_of(id, question["id"]), {"approved": True})
    assert one(frames, "plan")["steps"][0]["description"] == "Look around."
    assert frames[-1]["content"] == "Planned."


@pytest.mark.behaviour("api:approval:sub-agent")
@pytest.mark.parametrize("approved", [True, False])
async def test_a_question_of_a_sub_agent_is_asked_and_answered_in_the_session_itself(
    served: Served, approved: bool
) -> None:
    child = ScriptedModel([Reply("I dig. ", (SHELL,)), Reply("Dug.")])
    name = await served.agent(child, tools=["system_tools"], description="digs")
    call = Call("delegate", {"agent": name, "instruction": "dig"})
    async with api(served, ScriptedModel([Reply("You. ", (call,)), Reply("All done.")]), agents=[name]) as agent:
        id, question = await asked(agent)
        assert (question["type"], question["agent"], question["tool"]) == ("approval_required", name, "shell")
        assert question["session"] != id
        frames = await agent.post(approval_of(id, question["id"]), {"approved": approved})
    assert [frame["status"] for frame in frames if frame["type"] == "subagent"][-1] == "done"
    assert one(frames, "tool_done")["name"] == "delegate"
    assert frames[-1]["content"] == "All done."


ASKING = '''
from flux import task
from flux.tasks import pause

@task.with_options(requires_approval=True)
async def book(nights: int) -> int:
    """Book."""
    return nights

@task.with_options(effect="idempotent")
async def travel() -> str:
    """Book inside."""
    return f"{await book(3)} nights"

@task.with_options(effect="idempotent")
async def confirm() -> str:
    """Pause."""
    return str(await pause("confirm", output={"price": 7}))
'''


@pytest.mark.behaviour("api:approval:inside-a-tool")
async def test_what_the_code_of_a_tool_asks_for_is_approved(served: Served) -> None:
    model = ScriptedModel([Reply("Go. ", (Call("travel"),)), Reply("Gone.")])
    async with api(served, model, tools_file={"name": "trip.py", "source": ASKING}) as agent:
        id, question = await asked(agent)
        assert (question["channel"], question["tool"], question["args"]) == ("tools", "book", {"nights": 3})
        frames = await agent.post(approval_of(id, question["id"]), {"approved": True})
    assert (one(frames, "tool_done")["name"], frames[-1]["content"]) == ("travel", "Gone.")
    assert "3 nights" in str(model.requests[-1].messages[-1])


@pytest.mark.behaviour("api:elicitation:pause")
async def test_a_pause_in_the_code_of_a_tool_is_passed_on_and_answered(served: Served) -> None:
    model = ScriptedModel([Reply("Sure? ", (Call("confirm"),)), Reply("Sure.")])
    async with api(served, model, tools_file={"name": "trip.py", "source": ASKING}) as agent:
        id, question = await asked(agent)
        assert (question["type"], question["name"], question["output"]) == ("pause", "confirm", {"price": 7})
        body = {"elicitation_id": question["id"], "action": "accept", "content": {"ok": True}}
        frames = await agent.post(f"/elicitation/{question['id']}?session={id}", body)
    assert frames[-1]["content"] == "Sure."
    assert "{'ok': True}" in str(model.requests[-1].messages[-1])


@pytest.mark.behaviour("api:approval:closed")
async def test_the_first_answer_wins_and_its_repeat_tells_the_run_again(served: Served) -> None:
    model = ScriptedModel([Reply("I will. ", (SHELL,)), Reply("Done.")])
    async with api(served, model, tools=["system_tools"]) as agent:
        id, question = await asked(agent)
        path = approval_of(id, question["call"])
        first = await agent.post(path, {"approved": True})
        again = await agent.post(path, {"approved": True})
        assert [frame for frame in again if frame["type"] != "tool_output"] == [
            frame for frame in _joined(first) if frame["type"] != "tool_output"
        ]
        assert "answered" in await agent.refused(409, path, {"approved": False})
        await agent.chat("more", id)
        assert await agent.refused(400, path, {"approved": False})
        assert await agent.refused(409, approval_of(id, question["id"]), {"approved": False})


def _joined(frames: list[Frame]) -> list[Frame]:
    """Frames with the pieces of each answer in one."""
    found: list[Frame] = []
    for frame in frames:
        if found and frame["type"] == found[-1]["type"] == "token":
            found[-1] = frame | {"text": found[-1]["text"] + frame["text"]}
        else:
            found.append(frame)
    return found


@pytest.mark.behaviour("api:approval:unknown")
async def test_an_id_that_does_not_match_is_refused(served: Served) -> None:
    model = ScriptedModel([Reply("I will. ", (SHELL,)), Reply("Done.")])
    async with api(served, model, tools=["system_tools"]) as agent:
        id, question = await asked(agent)
        for wrong in ("nope", str(uuid.uuid4()), "call_0"):
            assert "no question" in await agent.refused(400, approval_of(id, wrong), {"approved": True})
        gone = str(uuid.uuid4())
        assert gone in await agent.refused(404, approval_of(gone, question["id"]), {"approved": True})
        assert "?session=ID" in await agent.refused(400, f"/approval/{question['id']}", {"approved": True})
        frames = await agent.post(approval_of(id, question["id"]), {"approved": True})
    assert frames[-1]["content"] == "Done."


@pytest.mark.behaviour("api:elicitation:answered")
@pytest.mark.parametrize("action", ["accept", "decline", "cancel"])
async def test_an_elicitation_is_shown_and_answered(served: Served, action: str) -> None:
    model = ScriptedModel([Reply("Wait. ", (Call("authorize"),)), Reply("Then.")])
    async with api(served, model, tools=["authorize"]) as agent:
        id, question = await asked(agent)
        expected = {
            "elicitation_id": "el-1",
            "url": "https://auth.example.com/go",
            "server_name": "github",
            "mode": "url",
        }
        assert question.items() >= (expected | {"type": "elicitation", "elicitation_id": "el-1"}).items()
        assert question["message"] == "Authorize Flux to access GitHub"
        body = {"elicitation_id": "el-1", "action": action}
        path = f"/elicitation/el-1?session={id}"
        assert "action" in await agent.refused(400, path, body | {"action": "maybe"})
        assert "el-2" in await agent.refused(400, path, body | {"elicitation_id": "el-2"})
        assert await agent.refused(400, f"/elicitation/el-2?session={id}", body | {"elicitation_id": "el-2"})
        assert await agent.refused(400, f"/approval/{question['id']}?session={id}", {"approved": True})
        frames = await agent.post(path, body)
        assert frames[-1]["content"] == "Then."
        other = "decline" if action == "accept" else "accept"
        assert "answered" in await agent.refused(409, path, body | {"action": other})
    assert action in str(model.requests[-1].messages[-1])


@pytest.mark.behaviour("api:elicitation:words")
async def test_a_question_for_words_is_an_elicitation_too(served: Served) -> None:
    model = asks("Which colour?")
    async with api(served, model, tools=["ask_user"]) as agent:
        id, question = await asked(agent)
        assert (question["type"], question["mode"], question["message"]) == ("elicitation", "input", "Which colour?")
        eid = question["elicitation_id"]
        path, body = f"/elicitation/{eid}?session={id}", {"elicitation_id": eid, "action": "accept"}
        assert "content" in await agent.refused(400, path, body)
        assert (await agent.post(path, body | {"content": "blue"}))[-1]["content"] == "done"
    assert "blue" in str(model.requests[-1].messages[-1])


@pytest.mark.behaviour("api:elicitation:closed")
async def test_a_question_of_an_earlier_run_is_closed_whatever_the_answer(served: Served) -> None:
    model = asks("Which colour?")
    async with api(served, model, tools=["ask_user"]) as agent:
        id, question = await asked(agent)
        eid = question["elicitation_id"]
        path, body = f"/elicitation/{eid}?session={id}", {"elicitation_id": eid, "action": "accept", "content": "blue"}
        await agent.post(path, body)
        await agent.chat("more", id)
        for action in ("accept", "decline", "cancel"):
            said = await agent.refused(409, path, {"elicitation_id": eid, "action": action})
            assert said == "the question is answered already; nothing was changed"
        said = await agent.refused(400, path, {**body, "action": "maybe"})
        assert said == "action must be accept, decline or cancel"


@pytest.mark.behaviour("api:elicitation:words")
async def test_a_question_for_words_may_be_declined(served: Served) -> None:
    model = asks("Which colour?")
    async with api(served, model, tools=["ask_user"]) as agent:
        id, question = await asked(agent)
        eid = question["elicitation_id"]
        body = {"elicitation_id": eid, "action": "decline"}
        assert (await agent.post(f"/elicitation/{eid}?session={id}", body))[-1]["content"] == "done"
    assert "declined" in str(model.requests[-1].messages[-1])


@pytest.mark.behaviour("api:chat:behind-a-question")
async def test_a_message_behind_a_question_is_queued_and_the_question_told_again(served: Served) -> None:
    model = ScriptedModel([Reply("I will. ", (SHELL,)), Reply("Done."), Reply("And that.")])
    key = uuid.uuid4().hex
    async with api(served, model, tools=["system_tools"]) as agent:
        id, question = await asked(agent)
        frames = await agent.chat("and then?", id, idempotency_key=key)
        assert frames == [{"type": "session_id", "id": id}, question]
        attached = asyncio.ensure_future(agent.chat("and then?", id, idempotency_key=key))
        frames = await agent.post(approval_of(id, question["id"]), {"approved": True})
        assert frames[-1]["content"] == "Done."
        frames = await attached
    assert text_of(frames) == frames[-1]["content"] == "And that."


@pytest.mark.behaviour("api:chat:behind-a-question")
async def test_a_question_that_is_asked_while_a_message_waits_is_told(served: Served) -> None:
    model = Held([Reply("I will. ", (SHELL,)), Reply("Done."), Reply("And that.")])
    async with (
        api(served, model, tools=["system_tools"]) as agent,
        aclosing(agent.stream("/chat", {"message": "do it"})) as first,
    ):
        id = (await anext(first))["id"]
        await model.asked.wait()
        async with aclosing(agent.stream(f"/chat?session={id}", {"message": "and?"})) as second:
            assert (await anext(second))["type"] == "session_id"
            model.open()
            frames = [frame async for frame in second]
        rest = [frame async for frame in first]
    assert kinds(frames) == ["approval_required"]
    assert frames[-1] == rest[-1]
