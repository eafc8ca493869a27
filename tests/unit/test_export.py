"""Sessions as files."""

import msgspec
import pytest
from markdown_it import MarkdownIt

from flux.errors import InvalidInput
from flux.events import (
    ApprovalRequired,
    AssistantSaid,
    Cancelled,
    ChatResponse,
    Compacted,
    Entry,
    Forked,
    InterruptAnswered,
    Planned,
    RunFailed,
    RunStarted,
    SessionEndedEntry,
    SessionStarted,
    Stored,
    ToolDone,
    UserSaid,
    encode,
)
from flux.export import Markdown, fenced, header, read_jsonl
from flux.messages import ImagePart, ReasoningPart, TextPart, ToolCall

ROW = {
    "id": "s1", "title": "A  title\n# no heading", "agent_name": "helper", "agent_version": 2, "started_at": 0.0,
    "state": "idle", "turns": 1, "usage": {"total": 1200, "cost": 0.5}, "head": 0,
}  # fmt: skip


def user(id: str, text: str) -> UserSaid:
    return UserSaid(id=id, mode="queue", parts=(TextPart(text),))


def markdown(*entries: Entry) -> str:
    told = Markdown()
    middle = [told.feed(Stored(seq, 1, 60.0 * seq, entry)) for seq, entry in enumerate(entries, 1)]
    return told.begin(ROW) + "".join(middle) + told.end()


CALL = ToolCall("c1", "shell", {"command": "cat <x>"})
LOG: tuple[Entry, ...] = (
    SessionStarted(agent="helper", instance="i", name="n", definition_digest="d"),
    user("u1", "First"),
    user("u2", "Second"),
    RunStarted(run="r1", inputs=("u1",)),
    AssistantSaid(message_id="m1", parts=(ReasoningPart("Hm."), TextPart("I look.")), calls=(CALL,), model="a/b"),
    ApprovalRequired(id="q", call="c1", agent="helper", tool="shell", args=CALL.args, digest="d"),
    InterruptAnswered(id="q", decision="approve", by="ann", reason="fine"),
    ToolDone(call="c1", name="shell", status="success", outcome="success", content="```\n</details>\n```"),
    Planned(steps=({"name": "one", "description": "do it", "state": "done"}, {"name": "two"})),
    ChatResponse(content="I look.", turn=1),
    RunStarted(run="r2", inputs=("u2",)),
    RunFailed(message="the key\nwas refused"),
    user("u3", "Third"),
    Compacted(upto=3, summary="They talked."),
    Forked(source="s0", upto=12, dropped=("u3",)),
    user("u4", "Fourth"),
)


@pytest.mark.behaviour("export:markdown:told")
def test_a_session_reads_like_a_conversation() -> None:
    text = markdown(*LOG)
    places = [
        "# A title # no heading\n", "version 2", "1,200 tokens, $0.5000", "## User", "First", "## Assistant",
        "<summary>Reasoning</summary>", "Hm.", "I look.",
        "> Approval: shell — **approve** (fine), by ann, 1970-01-01 00:07:00 UTC",
        "<details><summary>✓ shell(command=cat &lt;x&gt;): success</summary>", '"command": "cat <x>"',
        "````text\n```\n</details>\n```\n````", "1. one: do it (done)", "2. two", "Second",
        "> **The run failed:** the key was refused", "They talked.", "> Forked from session `s0` at its entry 12",
        "## User (not read yet)", "Fourth",
    ]  # fmt: skip
    assert "Third" not in text
    at = 0
    for place in places:
        at = text.index(place, at)
    headings = [token.content for token in MarkdownIt().parse(text) if token.type == "inline" and token.level == 1]
    assert headings[0] == "A title # no heading"


@pytest.mark.behaviour("export:markdown:told")
def test_images_are_counted() -> None:
    said = UserSaid(id="u", mode="queue", parts=(TextPart("Look"), ImagePart("aGk=", "image/png")))
    assert "Look\n\n> 1 image, not shown here\n" in markdown(said, RunStarted(run="r", inputs=("u",)))


@pytest.mark.behaviour("export:markdown:told")
def test_ends_are_told() -> None:
    text = markdown(RunStarted(run="r", inputs=()), Cancelled(), SessionEndedEntry(reason="user_exit", turns=0))
    assert "> The run was stopped.\n\n> The session ended (user_exit).\n" in text


@pytest.mark.parametrize("text", ["", "plain", "```", "a ````` b", "```` ```"])
def test_a_fence_is_longer_than_what_it_holds(text: str) -> None:
    (block,) = [token for token in MarkdownIt().parse(fenced(text)) if token.type == "fence"]
    assert block.content.rstrip("\n") == text


def lines(*entries: Entry) -> list[str]:
    rows = [
        msgspec.json.decode(encode(entry)) | {"seq": n, "epoch": 1, "at": 2.0} for n, entry in enumerate(entries, 1)
    ]
    return [header(ROW | {"head": len(rows)}), *(msgspec.json.encode(row).decode() + "\n" for row in rows)]


@pytest.mark.behaviour("export:jsonl:read-again")
def test_lines_are_read_again() -> None:
    found = read_jsonl(lines(*LOG))
    assert [stored.entry for stored in found.entries] == list(LOG)
    assert found.session["id"] == "s1"
    assert found.entries[1] == Stored(2, 1, 2.0, LOG[1])


@pytest.mark.behaviour("export:jsonl:read-again")
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "no session"), (['{"type":"x"}'], "no session"), (["{"], "cannot be read"),
        (lines(*LOG)[:-1], "not whole"), ([lines(*LOG)[0], *lines(*LOG)[2:]], "not whole"),
        ([*lines(*LOG)[:3], '{"seq": 3'], "cannot be read"), ([header(ROW), "{}"], "cannot be read"),
    ],
)  # fmt: skip
def test_a_part_of_a_file_is_refused(given: list[str], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        read_jsonl(given)
