"""A conversation by a workflow, as a person sees it in a pseudo terminal."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.terminal.conftest import Terminal

EXAMPLE = Path(__file__).parents[3] / "examples/agents/custom_workflow.yaml"


@pytest.fixture
def concierge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """`flux chat` with the example."""
    monkeypatch.chdir(EXAMPLE.parents[2])
    terminal = Terminal(["-m", "flux", "chat", str(EXAMPLE)], 80, 60, {"FLUX_HOME": str(tmp_path / "home")})
    yield terminal
    terminal.close()


@pytest.mark.behaviour("conversation:terminal:talk")
def test_it_greets_answers_and_says_goodbye(concierge: Terminal) -> None:
    assert "Welcome! What can I do for you?" in concierge.at_prompt()
    for turn in range(10):
        concierge.say(f"wish {turn}")
        shown = concierge.at_prompt(turn + 2)
        assert f"You said: wish {turn} I will see to it." in shown
    assert shown.count("Welcome!") == 1
    concierge.say("one more")
    assert "The session has ended (max_turns)." in concierge.until("max_turns")
