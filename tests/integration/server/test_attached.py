"""Images and files beside a message."""

import base64
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from flux.client import Attached
from flux.messages import FilePart, ImagePart, TextPart, UserMessage, UserPart
from flux.models.scripted import ScriptedModel
from tests.integration.server.conversations import greeted
from tests.integration.server.models import says
from tests.integration.server.serving import Served

PIXEL = base64.b64encode(b"\x89PNG").decode()
PAPER = base64.b64encode(b"%PDF-1.7").decode()
NOTE = base64.b64encode("grün\n".encode()).decode()
IMAGE = {"data": PIXEL, "mime_type": "image/png"}
FILES = [
    {"name": "paper.pdf", "data": PAPER, "mime_type": "application/pdf"},
    {"name": "note.txt", "data": NOTE, "mime_type": "text/plain; charset=utf-8"},
    {"name": "dot.gif", "data": PIXEL, "mime_type": "image/gif"},
]
PARTS: list[UserPart] = [
    TextPart("Look"),
    ImagePart(PIXEL, "image/png"),
    FilePart(PAPER, "application/pdf", "paper.pdf"),
    TextPart("\n\nFile note.txt:\n\ngrün\n"),
    ImagePart(PIXEL, "image/gif"),
]


def shown(model: ScriptedModel) -> list[UserPart]:
    """What the model was shown of the newest message."""
    message = model.requests[-1].messages[-1]
    assert isinstance(message, UserMessage)
    return list(message.parts)


@pytest.mark.behaviour("sessions:send:attached")
async def test_images_and_files_are_sent_beside_a_message(stored: Served) -> None:
    model = says("seen", "seen again")
    name = await stored.agent(model)
    body = {"message": "Look", "images": [IMAGE], "files": FILES}
    response = await stored.http.post("/sessions", json={"agent": name, **body})
    session = stored.client.session(response.json()["id"], "0")
    session.watch((await anext(stored.client.sessions.messages(session.id)))["id"])
    async with aclosing(session.until_rest()) as events:
        assert [event async for event in events]
    assert shown(model) == PARTS
    key, path = {"Idempotency-Key": session.id}, f"/sessions/{session.id}/messages"
    posted, again = [await stored.http.post(path, json=body, headers=key) for _ in range(2)]
    assert (posted.status_code, again.json()["repeated"]) == (202, True)
    other = await stored.http.post(path, json=body | {"images": []}, headers=key)
    assert other.json()["error"]["type"] == "idempotency_mismatch"


@pytest.mark.behaviour("client:attached")
async def test_the_client_sends_files(in_memory: Served, tmp_path: Path) -> None:
    (tmp_path / "note.md").write_text("grün\n")
    (tmp_path / "dot.png").write_bytes(b"\x89PNG")
    model = says("seen")
    session = await in_memory.client.start_session(await in_memory.agent(model))
    files = [Attached.of(tmp_path / "note.md"), Attached.of(tmp_path / "dot.png")]
    async with aclosing(session.send("Look", files=files)) as events:
        assert [event async for event in events]
    assert shown(model) == [TextPart("Look"), TextPart("\n\nFile note.md:\n\ngrün\n"), ImagePart(PIXEL, "image/png")]
    whole = b"".join([piece async for piece in session.export("markdown")]).decode()
    assert "> 1 image, not shown here" in whole


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"images": [{"data": "%%", "mime_type": "image/png"}]}, "images.0.data: is no base64"),
    ({"images": [{"data": PIXEL, "mime_type": "text/html"}]}, "images.0.mime_type"),
    ({"images": [IMAGE] * 21}, "images"),
    ({"images": [IMAGE | {"url": "http://x"}]}, "unknown field 'images.0.url'"),
    ({"files": [FILES[0] | {"mime_type": "application/zip"}]}, "files.0.mime_type: 'application/zip' is neither"),
    ({"files": [FILES[1] | {"data": PIXEL}]}, "files.0.data: is no text in UTF-8"),
    ({"files": [FILES[1] | {"data": "AA=="}]}, "files.0.data: is no text: it holds the character NUL"),
    ({"files": [FILES[1] | {"name": "a\nb"}]}, "files.0.name"),
    ({"files": [FILES[1] | {"data": base64.b64encode(b"x" * 1_100_000).decode()}]}, "the limit is"),
]


@pytest.mark.behaviour("sessions:send:attached-refused")
@pytest.mark.parametrize(("given", "words"), WRONG, ids=[words for _, words in WRONG])
async def test_what_cannot_stand_beside_a_message_is_named(
    in_memory: Served, given: dict[str, Any], words: str
) -> None:
    session = await in_memory.client.start_session(await in_memory.agent(says("no")))
    response = await in_memory.http.post(f"/sessions/{session.id}/messages", json={"message": "Look", **given})
    assert response.status_code in (400, 413), response.text
    assert words in response.json()["error"]["message"]
    assert (await session.info())["head"] == 1


@pytest.mark.behaviour("sessions:send:attached-refused")
async def test_a_workflow_and_a_session_without_a_message_take_none(in_memory: Served) -> None:
    id = await greeted(in_memory)
    response = await in_memory.http.post(f"/sessions/{id}/messages", json={"message": "Look", "images": [IMAGE]})
    assert (response.status_code, "text alone" in response.text) == (400, True)
    name = await in_memory.agent(says("no"))
    response = await in_memory.http.post("/sessions", json={"agent": name, "images": [IMAGE]})
    assert (response.status_code, "beside a message" in response.text) == (400, True)
