"""What a folder of Python files is as a project."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flux import create_agent
from flux.agents.project.discovery import env_beside, load_project
from flux.errors import ProjectUnusable

AGENT = 'from flux import create_agent\ndefault = create_agent(lambda ctx: {"model": "scripted/demo"})\n'


@pytest.fixture(autouse=True)
def _apart() -> Iterator[None]:
    modules, path = set(sys.modules), list(sys.path)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def written(root: Path, **files: str) -> Path:
    for name, text in files.items():
        file = root / name.replace("__", "/").replace("_py", ".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


@pytest.mark.behaviour("project:discovery:found")
@pytest.mark.parametrize("folder", ["agents", "src__agents"])
def test_agents_are_called_like_their_files_and_are_the_objects_that_others_import(tmp_path: Path, folder: str) -> None:
    dotted = folder.replace("__", ".")
    other = f"from {dotted}.support import default as support\n" + AGENT
    root = written(tmp_path / "shop", **{f"{folder}__support_py": AGENT, f"{folder}__other_py": other})
    project = load_project(root)
    assert (project.name, project.pool, sorted(project.agents)) == ("shop", "project:shop", ["other", "support"])
    assert sys.modules[f"{dotted}.other"].support is project.agents["support"]


@pytest.mark.behaviour("project:discovery:found")
@pytest.mark.parametrize(
    "text", [AGENT.replace("})", '}, name="desk")'), "from agents.support import default as agent\n"]
)
def test_an_agent_of_another_name_than_its_file_is_refused(tmp_path: Path, text: str) -> None:
    root = written(tmp_path, agents__support_py=AGENT, agents__twin_py=text)
    with pytest.raises(ProjectUnusable, match=r"agents/twin\.py: its agent is called (desk|support)"):
        load_project(root)


@pytest.mark.behaviour("project:discovery:env")
def test_who_dispatches_gives_initialisers_what_the_project_does(tmp_path: Path) -> None:
    root = written(tmp_path / "shop", agents__support_py=AGENT, flux_app_py='env = {"city": "Rome"}\n')
    assert env_beside(root / "agents" / "support.py") == {"city": "Rome"}
    assert env_beside(written(tmp_path / "bare", agents__support_py=AGENT) / "agents" / "support.py") is None


@pytest.mark.behaviour("project:discovery:workflows")
def test_a_workflow_is_a_decorated_function_or_run(tmp_path: Path) -> None:
    root = written(
        tmp_path,
        workflows__nightly_py="async def run(ctx):\n    return ctx.payload\n",
        workflows__report_py="from flux import workflow\n@workflow\nasync def weekly(ctx):\n    return 1\n",
        workflows___helpers_py="raise RuntimeError('not a workflow')\n",
    )
    project = load_project(root)
    assert {name: code.name for name, code in project.workflows.items()} == {"nightly": "nightly", "report": "weekly"}


@pytest.mark.behaviour("project:discovery:authorize")
def test_an_agent_has_its_own_rule_else_that_of_the_project(tmp_path: Path) -> None:
    root = written(
        tmp_path,
        agents__own_py=f"{AGENT}def authorize(request, agent, id):\n    return id == 'mine'\n",
        agents__other_py=AGENT,
        flux_app_py="def authorize(request, agent, id):\n    return False\n",
    )
    rules = load_project(root).authorize
    assert rules["own"](None, "own", "mine") is True
    assert rules["other"](None, "other", "mine") is False


@pytest.mark.behaviour("project:discovery:faults")
def test_everything_that_is_wrong_is_named_at_once(tmp_path: Path) -> None:
    root = written(
        tmp_path,
        agents__good_py=AGENT,
        agents__empty_py="",
        agents__broken_py="x = 1\nimport nothing_of_this_name\n",
        agents__leaves_py="import sys\nsys.exit(3)\n",
        agents__odd_py="default = 7\n",
        workflows__none_py="def run(ctx): ...\n",
        workflows__two_py="from flux import workflow\n@workflow\nasync def a(c): ...\n@workflow\nasync def b(c): ...\n",
    )
    (root / "agents" / "two words.py").write_text(AGENT)
    with pytest.raises(ProjectUnusable) as raised:
        load_project(root)
    said = str(raised.value)
    assert "agents/broken.py: it cannot be imported: " in said
    assert "(line 2 of agents/broken.py)" in said
    for name in ("agents/empty.py", "agents/leaves.py", "agents/odd.py", "two words", "workflows/none.py", "a, b"):
        assert name in said
    assert "good" not in said


@pytest.mark.behaviour("project:discovery:faults")
def test_a_folder_without_any_is_told_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ProjectUnusable, match="flux init"):
        load_project(tmp_path)
    with pytest.raises(ProjectUnusable, match="no folder"):
        load_project(tmp_path / "gone")


@pytest.mark.behaviour("project:discovery:faults")
def test_a_file_that_is_hidden_by_another_module_is_named(tmp_path: Path) -> None:
    root = written(tmp_path, flux_app_py="", agents__x_py=AGENT)
    sys.modules["flux_app"] = type(sys)("flux_app")
    with pytest.raises(ProjectUnusable, match="another module is called flux_app"):
        load_project(root)


@pytest.mark.behaviour("project:discovery:found")
def test_an_agent_that_is_not_in_a_project_is_an_agent_too() -> None:
    assert create_agent({"model": "scripted/demo"}).name == "test_project"
