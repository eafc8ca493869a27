"""What a person is asked, and what becomes of the answer."""

import io
import webbrowser
from collections.abc import Collection, Mapping

import pytest

from flux.events import ApprovalRequired, Elicited, InputRequired, Paused, PlanReview, Question
from flux.surfaces.terminal.plain import PlainView
from flux.surfaces.terminal.questions import Reply, ask, chosen


class Typed:
    """A person who answers in a fixed order."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.labels: list[str] = []
        self.twice: Collection[str] = ()

    async def key(
        self, label: str, keys: Mapping[str, str], enter: str | None = None, twice: Collection[str] = ()
    ) -> str:
        self.twice = twice
        self.labels.append(label)
        answer = self.answers.pop(0) or enter
        assert answer is not None
        assert answer in keys
        return answer

    async def line(self, label: str) -> str:
        self.labels.append(label)
        return self.answers.pop(0)


async def asked(question: Question, *answers: str) -> tuple[Reply, str, list[str]]:
    out = io.StringIO()
    typed = Typed(*answers)
    reply = await ask(question, PlainView(out, out), typed)
    return reply, out.getvalue(), typed.labels


APPROVAL = ApprovalRequired(
    id="i",
    call="c",
    agent="coder",
    tool="write_file",
    args={"path": "a.sh", "content": "one\ntwo\n"},
    digest="d",
    reason="r",
)
ELICITED = Elicited(
    id="i",
    call="c",
    mode="url",
    message="Authorize Flux",
    server_name="github",
    elicitation_id="e",
    url="https://a.example/x",
)


@pytest.mark.behaviour("terminal:approval:shows-everything")
async def test_an_approval_shows_every_argument() -> None:
    _, shown, labels = await asked(APPROVAL, "a")
    assert shown == (
        "coder asks to call write_file\n"
        "  | path: a.sh\n  | content:\n  |   one\n  |   two\n"
        "Reason: r\n"
    )  # fmt: skip
    assert labels == ["[a]pprove [A]lways [r]eject "]


@pytest.mark.behaviour("terminal:approval:always-twice")
async def test_always_must_be_confirmed() -> None:
    out = io.StringIO()
    typed = Typed("A")
    await ask(APPROVAL, PlainView(out, out), typed)
    assert typed.twice == "A"


@pytest.mark.behaviour("terminal:approval:choices")
@pytest.mark.parametrize(
    ("answers", "reply"),
    [
        (["a"], Reply("approve")),
        (["A"], Reply("approve", always=True)),
        (["r", ""], Reply("reject")),
        (["r", "no"], Reply("reject", reason="no")),
    ],
)
async def test_the_answers_to_an_approval(answers: list[str], reply: Reply) -> None:
    assert (await asked(APPROVAL, *answers))[0] == reply


@pytest.mark.behaviour("terminal:question:number-or-text")
async def test_a_question() -> None:
    question = InputRequired(id="i", call="c", question="Which?", options=("red", "green"))
    assert (await asked(question, "", "2"))[0] == Reply("answer", content="green")
    assert chosen("blue", ("red",)) == "blue"
    assert chosen("7", ("red",)) == "7"
    assert chosen("²", ("red", "green")) == "²"


@pytest.mark.behaviour("terminal:elicitation:browser-after-yes")
async def test_a_browser_opens_only_after_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def remember(url: str) -> bool:
        opened.append(url)
        return True

    monkeypatch.setattr(webbrowser, "open", remember)
    reply, shown, labels = await asked(ELICITED, "n")
    assert (reply, opened) == (Reply("decline"), [])
    assert shown == "[github] Authorize Flux\nhttps://a.example/x\n"
    assert labels == ["Open browser to authorize? [Y/n] "]
    reply, _, _ = await asked(ELICITED, "")
    assert (reply, opened) == (Reply("accept"), ["https://a.example/x"])


@pytest.mark.behaviour("terminal:elicitation:browser-after-yes")
async def test_only_web_addresses_are_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webbrowser, "open", lambda url: pytest.fail("opened"))
    question = Elicited(id="i", call="c", mode="url", message="m", server_name="s", elicitation_id="e", url="file:///x")
    assert (await asked(question, "y"))[0] == Reply("decline")


async def test_a_form_is_asked_field_by_field() -> None:
    schema = {
        "properties": {
            "name": {"type": "string", "title": "Name"},
            "age": {"type": "integer"},
            "ok": {"type": "boolean"},
        },
        "required": ["name"],
    }
    question = Elicited(id="i", call="c", mode="form", message="m", server_name="s", elicitation_id="e", schema=schema)
    reply, _, labels = await asked(question, "Ada", "36", "yes")
    assert reply == Reply("accept", content={"name": "Ada", "age": 36, "ok": True})
    assert labels == ["Name: ", "age: ", "ok: "]
    assert (await asked(question, ""))[0] == Reply("decline")


async def test_plans_and_pauses() -> None:
    plan = PlanReview(id="i", digest="d", steps=({"name": "build", "description": "Build it"}, {"name": "ship"}))
    reply, shown, _ = await asked(plan, "a")
    assert reply == Reply("approve")
    assert "  | 1. build: Build it\n  | 2. ship\n" in shown
    assert (await asked(plan, "r", "later"))[0] == Reply("reject", reason="later")
    assert (await asked(Paused(id="i", name="review", output={"n": 1}), "go"))[0] == Reply("answer", content="go")
