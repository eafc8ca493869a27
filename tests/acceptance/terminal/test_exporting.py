"""`/export`: the session on the screen or in a file, in one process."""

from pathlib import Path

import pytest

from flux.events import ChatResponse
from flux.export import read_jsonl
from flux.surfaces.terminal.commands import COMMANDS, completions
from tests.acceptance.terminal.test_conversation import Person, client, talk


@pytest.mark.behaviour("terminal:export:file")
async def test_a_session_is_written_to_a_file_by_its_ending(tmp_path: Path) -> None:
    notes, log, other = tmp_path / "the notes.md", tmp_path / "log.jsonl", tmp_path / "log.txt"
    async with client(tmp_path) as opened:
        session = await opened.start_session("helper")
        shown = await talk(
            opened, session.id, Person("go", f"/export {notes}", f"/export {log}", f"/export jsonl {other}")
        )
        whole = b"".join([piece async for piece in session.export("markdown")])
    assert f"Wrote {notes} ({len(whole):,} bytes)\n" in shown
    assert notes.read_bytes() == whole
    assert log.read_bytes() == other.read_bytes()
    found = [stored.entry for stored in read_jsonl(log.read_text().splitlines()).entries]
    assert [entry.content for entry in found if isinstance(entry, ChatResponse)] == ["Good."]


@pytest.mark.behaviour("terminal:export:file")
async def test_what_cannot_be_written_is_told_in_one_line_and_leaves_no_file(tmp_path: Path) -> None:
    there = tmp_path / "there.md"
    there.write_text("mine")
    async with client(tmp_path) as opened:
        session = await opened.start_session("helper")
        lines = [f"/export {name}" for name in (there, tmp_path / "no" / "way.md", tmp_path / "session", tmp_path)]
        shown = await talk(opened, session.id, Person("go", *lines))
    assert f"{there} is there already; choose another name" in shown
    assert f"{tmp_path / 'no' / 'way.md'} cannot be written: No such file or directory" in shown
    assert f"end the name with .md or .jsonl, or say /export jsonl {tmp_path / 'session'}" in shown
    assert there.read_text() == "mine"
    assert not (tmp_path / "session").exists()


@pytest.mark.behaviour("terminal:export:screen")
async def test_a_session_is_shown_as_text(tmp_path: Path) -> None:
    async with client(tmp_path) as opened:
        session = await opened.start_session("helper")
        shown = await talk(opened, session.id, Person("go \x1b[31m", "/export", "/export jsonl"))
    whole = shown.partition("# ")[2]
    assert "Good." in whole
    assert '{"seq":1,' in shown.replace(" ", "")
    assert "\x1b" not in shown


@pytest.mark.behaviour("terminal:export:screen")
def test_tab_completes_the_command_and_its_formats() -> None:
    assert completions("/exp") == ["/export"]
    assert completions("/export ") == ["/export markdown", "/export jsonl"]
    assert completions("/export j") == ["/export jsonl"]
    assert completions("/model d") == ["/model default"]
    assert completions("/help ") == completions("hello") == []
    assert "FILE.jsonl" in COMMANDS["/export FILE"]
