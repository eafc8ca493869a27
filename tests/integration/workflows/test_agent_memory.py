"""`agent()` with a long-term memory: in a script, and shared between agents of one workflow."""

import json
from pathlib import Path

import pytest

from flux import ExecutionContext, workflow
from flux.agents.define.memory import LongTermMemory
from flux.errors import InvalidInput
from flux.tasks.ai import agent
from flux.tasks.ai.memory import in_memory, long_term_memory, postgresql, sqlite

STORE = '- {calls: [{name: store_memory, args: {key: city, value: Rome}}]}\n- {text: "Noted."}\n'
RECALL = '- {calls: [{name: recall_memory, args: {key: city}}]}\n- {text: "I know."}\n'


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of a script, with two scripted models in its directory."""
    monkeypatch.setenv("FLUX_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "store.yaml").write_text(STORE)
    (tmp_path / "recall.yaml").write_text(RECALL)
    return tmp_path / "home"


@workflow.with_options(namespace="agent_memory")
async def remembers(ctx: ExecutionContext[str]) -> str:
    """One agent notes something down, another one recalls it."""
    shared = long_term_memory(provider=sqlite("team/notes.db"), scope="user:123")
    first = await agent("Note.", model="scripted/store.yaml", name="first", long_term_memory=shared)
    second = await agent("Recall.", model="scripted/recall.yaml", name="second", long_term_memory=shared)
    await first("go")
    answer: str = await second("go")
    return answer


@pytest.mark.behaviour("inline:agent:memory")
async def test_agents_of_a_script_share_a_memory_in_a_file_of_the_home(home: Path) -> None:
    context = await remembers.run_async("")
    assert context.output == "I know."
    done = [event.value for event in context.events if event.name == "recall_memory" and event.value]
    assert json.loads(done[-1])["value"] == "Rome"
    assert (home / "memories" / "team" / "notes.db").is_file()


@pytest.mark.behaviour("inline:agent:memory")
async def test_an_agent_alone_remembers_in_flux_own_database(home: Path) -> None:
    helper = await agent("Note.", model="scripted/store.yaml", name="helper", long_term_memory=long_term_memory())
    assert await helper("go") == "Noted."
    assert not (home / "memories").exists()


@pytest.mark.behaviour("inline:agent:memory")
def test_a_memory_in_code_is_the_value_of_the_definition_s_field() -> None:
    assert long_term_memory() == LongTermMemory()
    assert long_term_memory(scope="s").model_dump(exclude_unset=True) == {"scope": "s"}
    assert long_term_memory(in_memory()) == LongTermMemory(provider="in_memory")
    assert long_term_memory(provider=postgresql("secret:URL")).connection == "secret:URL"
    for place in (sqlite("../x"), postgresql("mysql://hunter22@h"), sqlite("a\0")):
        with pytest.raises(InvalidInput, match="long_term_memory") as refused:
            long_term_memory(provider=place)
        assert "hunter22" not in str(refused.value)
