"""Artifacts over HTTP: listed in pages, and served as files that no browser runs."""

import httpx
import pytest

from flux.errors import ArtifactNotFound, SessionNotFound
from flux.models.scripted import Call, Reply, ScriptedModel
from flux.store import artifacts
from flux.store.database import LOCAL, one
from tests.integration.server.serving import Served

PAGE = b"<script>alert(1)</script>"


async def filled(served: Served) -> str:
    """A session with three artifacts; its id."""
    say = "for n in $(seq 30000); do echo line $n; done"
    script = [Reply("", calls=(Call("shell", {"command": say}),)), Reply("ok")]
    name = await served.agent(ScriptedModel(script), tools=["shell"], tool_approvals={"shell": False})
    session = await served.client.start_session(name)
    assert [event async for event in session.send("go")]
    row = await served.process.sessions.get(LOCAL, session.id)
    await served.process.database.write(one("update executions set state = 'running' where id = :id", id=row.id))
    for n, (type, data) in enumerate({"text/html": PAGE, "image/png": b"\x89PNG\0"}.items()):
        put = artifacts.put(LOCAL, row.id, row.epoch, f"{row.id}-{n}", name='a "name".x', media_type=type, data=data)
        await served.process.database.write(put)
    await served.process.database.write(one("update executions set state = 'idle' where id = :id", id=row.id))
    return session.id


@pytest.mark.behaviour("artifacts:list")
async def test_a_client_lists_and_reads_artifacts(served: Served) -> None:
    id = await filled(served)
    session = served.client.session(id)
    found = [row async for row in session.artifacts()]
    assert [row["media_type"] for row in found] == ["text/plain", "text/html", "image/png"]
    assert all(row["session"] == id for row in found)
    text = (await session.artifact(found[0]["id"])).decode()
    assert len(text) == found[0]["size"]
    assert "line 1\n" in text
    assert "line 29999\n" in text
    assert await session.artifact(found[1]["id"]) == PAGE
    first = await served.client.get(f"/sessions/{id}/artifacts", limit=2)
    second = await served.client.get(f"/sessions/{id}/artifacts", limit=2, cursor=first["next_cursor"])
    assert first["items"] + second["items"] == found
    assert second["next_cursor"] is None


@pytest.mark.behaviour("artifacts:safe")
async def test_an_artifact_is_a_file_to_save_and_never_a_page(served: Served) -> None:
    id = await filled(served)
    answers: list[httpx.Response] = [await served.http.get(f"/sessions/{id}/artifacts/{id}-{n}") for n in (0, 1)]
    assert [answer.headers["content-type"] for answer in answers] == ["application/octet-stream", "image/png"]
    for answer in answers:
        assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''a%20%22name%22.x"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"


@pytest.mark.behaviour("artifacts:list")
async def test_what_is_not_there_is_said_in_one_line(served: Served) -> None:
    id = await filled(served)
    with pytest.raises(ArtifactNotFound, match="has no artifact 'nothing'"):
        await served.client.session(id).artifact("nothing")
    other = await served.client.start_session(await served.agent(ScriptedModel([Reply("ok")])))
    with pytest.raises(ArtifactNotFound):
        await other.artifact(f"{id}-0")
    with pytest.raises(SessionNotFound):
        await served.client.session("nowhere").artifact(f"{id}-0")
