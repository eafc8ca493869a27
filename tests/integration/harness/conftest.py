"""Programs that run agents for themselves: on a database of their own, with models that follow scripts."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flux import CreatedAgent, configure_provider, create_agent
from flux.agents.harness.host import close_hosts
from flux.models.configured import forget_provider
from flux.models.scripted import Script
from flux.testing import ScriptedModel

#: Makes an agent `desk` of the script of its model and of further fields.
MakeAgent = Callable[..., CreatedAgent]


@pytest.fixture
async def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Path]:
    """The home of the program, which works in a directory beside it."""
    monkeypatch.setenv("FLUX_HOME", str(tmp_path / "home"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    yield tmp_path / "home"
    await close_hosts()


@pytest.fixture
def models() -> Iterator[dict[str, ScriptedModel]]:
    """Scripted models: `test/NAME`, by name."""
    found: dict[str, ScriptedModel] = {}
    configure_provider("test", model=lambda name: found[name])
    yield found
    forget_provider("test")


@pytest.fixture
def desk(home: Path, models: dict[str, ScriptedModel]) -> MakeAgent:
    def make(script: Script | ScriptedModel, **fields: Any) -> CreatedAgent:
        models["main"] = script if isinstance(script, ScriptedModel) else ScriptedModel(script)
        return create_agent(lambda: {"model": "test/main", **fields}, name="desk")

    return make
