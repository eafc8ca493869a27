"""The routes of sessions: what each answers, and with which status."""

import asyncio
from contextlib import aclosing
from typing import Any, cast

import pytest

from flux.agents.define.definition import define
from flux.agents.service import exporting
from flux.events import ChatResponse
from flux.export import read_jsonl
from flux.models.scripted import Call, Reply, ScriptedModel
from flux.store.database import Scope
from tests.integration.server.models import LONG, Held, asks, says
from tests.integration.server.serving import Served
from tests.integration.server.streams import history


async def call(served: Served, method: str, path: str, status: int, body: Any = None, **headers: str) -> dict[str, Any]:
    """What a request is answered with; the status must be this."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    response = await served.http.request(method, path, json=body, headers=named)
    assert response.status_code == status, response.text
    value: dict[str, Any] = response.json() if response.content else {}
    return value


async def refused(served: Served, method: str, path: str, status: int, body: Any = None) -> str:
    """The type of the error that a request is answered with."""
    error = (await call(served, method, path, status, body))["error"]
    assert set(error) == {"type", "message", "details"}
    assert error["message"]
    return str(error["type"])


async def rested(served: Served, *texts: str) -> str:
    """The id of a session that has answered once."""
    session = await served.client.start_session(await served.agent(says(*texts or ("hi",))), "Hello there")
    await history(served.client, session.id)
    return session.id


@pytest.mark.behaviour("server:sessions:start")
async def test_a_started_session_is_a_row(served: Served) -> None:
    agent = await served.agent(says("hi"))
    row = await call(served, "POST", "/sessions", 201, {"agent": agent, "instance": f"i-{agent}", "name": "work"})
    assert row["id"] == row["execution_id"]
    assert (row["agent_name"], row["instance"], row["name"]) == (agent, f"i-{agent}", "work")
    assert (row["state"], row["turns"], row["waiting_for"], row["repeated"]) == ("idle", 0, None, False)
    shown = await call(served, "GET", f"/sessions/{row['id']}", 200)
    assert shown.items() <= row.items()


@pytest.mark.behaviour("server:sessions:start")
async def test_a_session_may_start_with_a_message(served: Served) -> None:
    agent = await served.agent(says("hi"))
    row = await call(served, "POST", "/sessions", 201, {"agent": agent, "message": "A title\nand more"})
    assert row["title"] == "A title"
    assert [event.type for event in await history(served.client, row["id"])][-1] == "chat_response"
    shown = await call(served, "GET", f"/sessions/{row['id']}", 200)
    assert (shown["turns"], shown["usage"]["output"]) == (1, 1)


@pytest.mark.behaviour("server:sessions:start")
async def test_a_session_of_a_taken_name_or_of_no_agent_is_refused(served: Served) -> None:
    start = {"agent": await served.agent(says("hi")), "instance": "same"}
    await call(served, "POST", "/sessions", 201, start)
    assert await refused(served, "POST", "/sessions", 409, start) == "session_exists"
    assert await refused(served, "POST", "/sessions", 404, {"agent": "nobody"}) == "agent_not_found"


@pytest.mark.behaviour("server:idempotency:sessions")
async def test_a_session_is_started_once_per_key(served: Served) -> None:
    agent = await served.agent(says("hi"))
    start = {"agent": agent, "message": "Hello"}
    first = await call(served, "POST", "/sessions", 201, start, Idempotency_Key=agent)
    again = await call(served, "POST", "/sessions", 201, start, Idempotency_Key=agent)
    assert (again["id"], again["seq"]) == (first["id"], first["seq"])
    assert (first["repeated"], again["repeated"]) == (False, True)
    other = await call(served, "POST", "/sessions", 409, {**start, "message": "Bye"}, Idempotency_Key=agent)
    assert other["error"]["type"] == "idempotency_mismatch"


@pytest.mark.behaviour("server:idempotency:messages")
async def test_a_message_is_accepted_once_per_key(served: Served) -> None:
    id = await rested(served)
    path, body = f"/sessions/{id}/messages", {"message": "Go on"}
    first = await call(served, "POST", path, 202, body, Idempotency_Key=id)
    again = await call(served, "POST", path, 202, body, Idempotency_Key=id)
    assert first == {"id": id, "seq": first["seq"], "repeated": False, "message": first["message"]}
    assert again == {**first, "repeated": True}
    await history(served.client, id, 2)
    other = await call(served, "POST", path, 409, {"message": "Stop"}, Idempotency_Key=id)
    assert other["error"]["type"] == "idempotency_mismatch"


@pytest.mark.behaviour("server:idempotency:messages")
async def test_a_key_may_be_repeated_after_the_session_ended(served: Served) -> None:
    id = await rested(served)
    path, body = f"/sessions/{id}/messages", {"message": "Go on"}
    first = await call(served, "POST", path, 202, body, Idempotency_Key=id)
    await call(served, "POST", f"/sessions/{id}/stop", 202)
    assert await call(served, "POST", path, 202, body, Idempotency_Key=id) == {**first, "repeated": True}


@pytest.mark.behaviour("server:sessions:list")
async def test_sessions_are_listed_page_by_page(served: Served) -> None:
    agent = await served.agent(says("hi"))
    made = [(await served.client.start_session(agent)).id for _ in range(5)]
    query: dict[str, Any] = {"agent": agent, "limit": 2}
    page = (await served.http.get("/sessions", params=query)).json()
    assert [row["id"] for row in page["items"]] == [made[4], made[3]]
    assert made[3] not in page["next_cursor"]
    assert [row["id"] async for row in served.client.pages("/sessions", **query)] == made[::-1]
    last = (await served.http.get("/sessions", params={"agent": agent, "limit": 5})).json()
    assert last["next_cursor"] is None


@pytest.mark.behaviour("server:sessions:list")
async def test_sessions_are_found_by_state_instance_and_agent(served: Served) -> None:
    agent = await served.agent(says("hi"))
    one = (await served.client.start_session(agent, instance="one")).id
    two = (await served.client.start_session(agent, instance="two")).id
    await call(served, "POST", f"/sessions/{two}/stop", 202)

    async def found(path: str) -> list[str]:
        return [row["id"] for row in (await call(served, "GET", path, 200))["items"]]

    assert await found(f"/sessions?agent={agent}&instance=one") == [one]
    assert await found(f"/sessions?agent={agent}&state=ended") == [two]
    assert await found(f"/agents/{agent}/sessions") == [two, one]
    assert await found(f"/agents/{agent}/sessions?state=idle") == [one]
    assert {one, two} <= set(await found("/agents/sessions?limit=200"))
    assert await refused(served, "GET", "/sessions?state=asleep", 400) == "invalid_input"


@pytest.mark.behaviour("server:sessions:search")
async def test_sessions_are_searched_in_titles_and_texts(served: Served) -> None:
    agent = await served.agent(says("The capital is 100% Reykjavík."))
    id = (await served.client.start_session(agent, "Iceland, which_capital?")).id
    await history(served.client, id)

    async def found(text: str) -> list[str]:
        page = await served.http.get("/sessions", params={"q": text, "agent": agent})
        return [row["id"] for row in page.json()["items"]]

    for text in ("iceland", "which_capital", "100%", "REYKJAV"):
        assert await found(text) == [id], text
    for text in ("norway", "whichXcapital", "100%%", "run_started"):
        assert await found(text) == [], text
    await served.client.put(f"/sessions/{id}/name", {"name": "Far north"})
    assert await found("far NORTH") == [id]


FOREIGN_CURSORS = ("x", "!", "WzFd", "W10", "eyJhIjoxfQ", "WyJhIiwgMV0", "ü", "0.0.0", "WzEuNSwgInhcIl0")


@pytest.mark.behaviour("server:cursors:opaque")
@pytest.mark.parametrize("path", ["/sessions", "/agents", "/agents/sessions", "/agents/x/sessions"])
async def test_a_cursor_of_somebody_else_is_refused(in_memory: Served, path: str) -> None:
    for cursor in FOREIGN_CURSORS:
        response = await in_memory.http.get(path, params={"cursor": cursor})
        assert response.status_code == 400, cursor
        assert response.json()["error"]["message"] == "cursor: use the next_cursor of the page before"


@pytest.mark.behaviour("server:sessions:events")
async def test_the_log_is_read_page_by_page(served: Served) -> None:
    id = await rested(served, "one two")
    whole = (await call(served, "GET", f"/sessions/{id}/events", 200))["items"]
    assert [entry["seq"] for entry in whole] == list(range(1, len(whole) + 1))
    assert [entry["type"] for entry in whole] == [
        "session_started", "user_message", "run_started", "context", "assistant_message", "chat_response",
    ]  # fmt: skip
    assert [entry async for entry in served.client.pages(f"/sessions/{id}/events", limit=4)] == whole
    page = await call(served, "GET", f"/sessions/{id}/events?after=4.1.9&limit=1", 200)
    assert [entry["seq"] for entry in page["items"]] == [5]
    assert await refused(served, "GET", f"/sessions/{id}/events?after=x", 400) == "invalid_input"
    assert await refused(served, "GET", f"/sessions/{id}/events?after={10**30}", 400) == "invalid_input"


@pytest.mark.behaviour("server:sessions:messages")
async def test_messages_are_what_was_said_and_done(served: Served) -> None:
    model = ScriptedModel([Reply("one", (Call("nothing"),), reasoning="my thoughts"), Reply("two")])
    session = await served.client.start_session(await served.agent(model), "Hello")
    await history(served.client, session.id)
    path = f"/sessions/{session.id}/messages"
    whole = (await call(served, "GET", path, 200))["items"]
    assert [message["role"] for message in whole] == ["user", "assistant", "tool", "assistant"]
    assert whole[0]["parts"] == [{"type": "text", "text": "Hello"}]
    assert [part["type"] for part in whole[1]["parts"]] == ["reasoning", "text", "call"]
    assert whole[2]["call"] == whole[1]["calls"][0]["id"] == whole[1]["parts"][2]["call"]
    assert whole[2]["outcome"] == "error"
    assert [message async for message in served.client.pages(path, limit=2)] == whole
    assert await served.client.messages(session.id) == whole
    assert await refused(served, "GET", f"{path}?after={10**30}", 400) == "invalid_input"
    assert await refused(served, "GET", f"{path}?after=-1", 400) == "invalid_input"


@pytest.mark.behaviour("server:sessions:ended")
async def test_an_ended_session_takes_nothing_more(served: Served) -> None:
    id = await rested(served)
    assert await refused(served, "DELETE", f"/sessions/{id}", 409) == "session_busy"
    await call(served, "POST", f"/sessions/{id}/stop", 202)
    for path, body in (("messages", {"message": "Hello?"}), ("cancel", None), ("stop", None)):
        assert await refused(served, "POST", f"/sessions/{id}/{path}", 409, body) == "session_ended"
    row = await call(served, "GET", f"/sessions/{id}", 200)
    assert (row["state"], row["outcome"]) == ("ended", "cancelled")


@pytest.mark.behaviour("server:sessions:delete")
async def test_an_ended_session_can_be_deleted(served: Served) -> None:
    id = await rested(served)
    await call(served, "POST", f"/sessions/{id}/stop", 202)
    await call(served, "DELETE", f"/sessions/{id}", 204)
    for path in ("", "/events", "/messages", "/interrupts"):
        assert await refused(served, "GET", f"/sessions/{id}{path}", 404) == "session_not_found"
    assert await refused(served, "DELETE", f"/sessions/{id}", 404) == "session_not_found"


@pytest.mark.behaviour("server:sessions:rename")
async def test_a_session_can_be_renamed(served: Served) -> None:
    id = await rested(served)
    row = await call(served, "PUT", f"/sessions/{id}/name", 200, {"name": "A better title"})
    assert (row["id"], row["title"]) == (id, "A better title")
    assert await refused(served, "PUT", f"/sessions/{id}/name", 400, {"name": ""}) == "invalid_input"


@pytest.mark.behaviour("server:sessions:cancel")
async def test_a_cancelled_run_leaves_the_session_usable(served: Served) -> None:
    model = Held([Reply(LONG), Reply("still here")])
    session = await served.client.start_session(await served.agent(model), "Hello")
    await model.asked.wait()
    assert (await call(served, "POST", f"/sessions/{session.id}/cancel", 202))["cancelled"] is True
    async with aclosing(session.until_rest()) as events:
        assert [type(event.event).__name__ async for event in events][-1] == "Cancelled"
    assert await call(served, "POST", f"/sessions/{session.id}/cancel", 202) == {"id": session.id, "cancelled": False}
    model.open()
    assert [event async for event in session.send("Again")]
    assert session.state == "ended"


@pytest.mark.behaviour("server:sessions:busy")
async def test_a_message_may_refuse_to_wait(served: Served) -> None:
    model = Held([Reply(LONG)])
    session = await served.client.start_session(await served.agent(model), "Hello")
    await model.asked.wait()
    body = {"message": "Now!", "mode": "reject"}
    assert await refused(served, "POST", f"/sessions/{session.id}/messages", 409, body) == "session_busy"
    model.open()


@pytest.mark.behaviour("server:interrupts:answer")
async def test_a_question_is_listed_and_answered_once(served: Served) -> None:
    session = await served.client.start_session(await served.agent(asks("Why?"), tools=["ask_user"]), "Hello")
    async with aclosing(session.until_rest()) as events:
        assert [event async for event in events]
    (asked,) = (await call(served, "GET", f"/sessions/{session.id}/interrupts", 200))["items"]
    assert (asked["session"], asked["kind"], asked["state"]) == (session.id, "input", "open")
    assert asked["payload"]["question"] == "Why?"
    path = f"/sessions/{session.id}/interrupts"
    answer = {"decision": "answer", "content": "Because"}
    assert await refused(served, "POST", f"{path}/other", 404, answer) == "interrupt_not_found"
    assert await refused(served, "POST", f"{path}/{asked['id']}", 400, {"decision": "approve"}) == "invalid_input"
    first = await call(served, "POST", f"{path}/{asked['id']}", 202, answer)
    assert first["repeated"] is False
    async with aclosing(session.until_rest()) as events:
        assert [event async for event in events]
    assert (await call(served, "POST", f"{path}/{asked['id']}", 202, answer))["repeated"] is True
    late = {"decision": "answer", "content": "No"}
    assert await refused(served, "POST", f"{path}/{asked['id']}", 409, late) == "interrupt_decided"
    assert (await call(served, "GET", path, 200))["items"] == []


@pytest.mark.behaviour("server:interrupts:race")
async def test_of_many_answers_at_once_one_wins(served: Served) -> None:
    session = await served.client.start_session(await served.agent(asks("Why?"), tools=["ask_user"]), "Hello")
    async with aclosing(session.until_rest()) as events:
        assert [event async for event in events]
    (asked,) = await session.interrupts()
    path = f"/sessions/{session.id}/interrupts/{asked['id']}"

    async def answer(content: str) -> int:
        response = await served.http.post(path, json={"decision": "answer", "content": content})
        return response.status_code

    statuses = await asyncio.gather(*(answer(f"answer {n}") for n in range(8)))
    assert sorted(statuses) == [202] + [409] * 7


OTHERS = [
    ("GET", "", None),
    ("GET", "/events", None),
    ("GET", "/messages", None),
    ("GET", "/interrupts", None),
    ("POST", "/messages", {"message": "Hello"}),
    ("POST", "/interrupts/x", {"decision": "approve"}),
    ("POST", "/cancel", None),
    ("POST", "/stop", None),
    ("PUT", "/name", {"name": "Mine"}),
    ("DELETE", "", None),
]


@pytest.mark.behaviour("server:sessions:others")
@pytest.mark.parametrize("whose", [Scope("default", "somebody"), Scope("elsewhere", "local")])
@pytest.mark.parametrize(("method", "path", "body"), OTHERS)
async def test_a_session_of_somebody_else_is_not_there(
    in_memory: Served, whose: Scope, method: str, path: str, body: Any
) -> None:
    agent = await in_memory.agent(says("hi"))
    definition = define((await in_memory.client.get(f"/agents/{agent}"))["definition"])
    await in_memory.process.agents.put(whose, definition, create=True, update=True)
    theirs = await in_memory.process.sessions.start(whose, agent)
    assert await refused(in_memory, method, f"/sessions/{theirs.id}{path}", 404, body) == "session_not_found"
    assert theirs.id not in (await in_memory.http.get(f"/sessions?agent={agent}")).text
    events = await in_memory.http.get(f"/sessions/{theirs.id}/events", headers={"Accept": "text/event-stream"})
    assert events.status_code == 404


@pytest.mark.behaviour("server:sessions:fork")
async def test_a_session_is_forked(served: Served) -> None:
    id = await rested(served, "one", "two")
    session = served.client.session(id)
    head = (await session.info())["head"]
    row = await call(
        served, "POST", f"/sessions/{id}/fork", 201, {"at": head, "name": "other"}, Idempotency_Key=f"k-{id}"
    )
    assert (row["name"], row["title"], row["state"], row["seq"]) == ("other", "Hello there", "idle", head + 1)
    again = await call(
        served, "POST", f"/sessions/{id}/fork", 201, {"at": head, "name": "other"}, Idempotency_Key=f"k-{id}"
    )
    assert (again["id"], again["repeated"]) == (row["id"], True)
    forked = await session.fork()
    async with aclosing(forked.send("more")) as events:
        assert isinstance([event.event async for event in events][-1], ChatResponse)
    page = await call(served, "GET", f"/sessions/{forked.id}/events", 200)
    types = [entry["type"] for entry in page["items"]]
    assert types.count("user_message") == 2
    assert types.count("forked") == 1
    assert await refused(served, "POST", f"/sessions/{id}/fork", 400, {"at": 1000}) == "invalid_input"
    assert await refused(served, "POST", f"/sessions/{id}/fork", 400, {"at": 1 << 40}) == "invalid_input"
    assert await refused(served, "POST", "/sessions/nowhere/fork", 404, {}) == "session_not_found"
    assert await refused(served, "POST", f"/sessions/{id}/fork", 409, {"name": "other"}) == "session_exists"


@pytest.mark.behaviour("server:sessions:export", "export:jsonl:read-again")
async def test_a_session_is_exported(served: Served) -> None:
    id = await rested(served, "one ünï")
    session = served.client.session(id)
    found = read_jsonl(b"".join([piece async for piece in session.export()]).splitlines())
    log = await served.process.sessions.entries(Scope("default", "local"), id, 0, 100)
    assert [stored.entry for stored in found.entries] == [row.stored().entry for row in log]
    assert found.session["id"] == id
    response = await served.http.get(f"/sessions/{id}/export", params={"format": "markdown"})
    assert response.headers["content-type"] == "text/markdown; charset=utf-8"
    assert response.headers["content-disposition"] == f'attachment; filename="session-{id}.md"'
    assert "one ünï" in response.text
    assert await refused(served, "GET", f"/sessions/{id}/export?format=pdf", 400) == "invalid_input"
    assert await refused(served, "GET", "/sessions/nowhere/export", 404) == "session_not_found"


@pytest.mark.behaviour("export:stream:bounded")
async def test_an_export_is_read_in_pieces_and_redacted(in_memory: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    id = await rested(in_memory, "the word is swordfish")
    monkeypatch.setattr(exporting, "PAGE", 2)
    row = await in_memory.client.session(id).info()
    for format, pieces in (("jsonl", 4), ("markdown", 3)):
        exported = exporting.exported(
            in_memory.process.database, Scope("default", "local"), row, cast(exporting.Format, format),
            lambda text: text.replace("swordfish", "***"),
        )  # fmt: skip
        found = [piece async for piece in exported]
        assert len(found) >= pieces
        assert b"swordfish" not in b"".join(found)
        assert b"***" in b"".join(found)
