"""Skills and tools of files on the command line: read where it runs, stored with the agent."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flux.agents.define.yaml import define_from
from flux.errors import DefinitionInvalid
from tests.acceptance.test_cli import complains, environment

Done = subprocess.CompletedProcess[str]
Flux = Callable[..., Done]

TOOLS = '''\
from flux import task

@task
async def price(item: str) -> int:
    """What ${ITEM} costs."""
    return 3
'''


@pytest.fixture
def flux(tmp_path: Path) -> Flux:
    """Run the command in a folder with a file of tools and two skills, one of them malformed."""
    skill(tmp_path, "pdf-forms", "name: pdf-forms\ndescription: Fill in PDF forms.")
    (tmp_path / "skills" / "pdf-forms" / "reference.md").write_text("fields\n")
    skill(tmp_path, "broken", "name: broken")
    (tmp_path / "shop.py").write_text(TOOLS)

    def run(*arguments: str) -> Done:
        return subprocess.run(
            [sys.executable, "-m", "flux", *arguments],
            cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=50, check=False,
        )  # fmt: skip

    return run


def skill(root: Path, name: str, fields: str) -> None:
    folder = root / "skills" / name
    folder.mkdir(parents=True)
    (folder / "SKILL.md").write_text(f"---\n{fields}\n---\nDo it.\n")


CREATE = ("agent", "create", "clerk", "--model", "scripted/demo", "--system-prompt", "Help.")


@pytest.mark.behaviour("cli:agents:shipped")
def test_skills_and_tools_are_stored_shown_exported_and_kept(flux: Flux, tmp_path: Path) -> None:
    made = flux(*CREATE, "--skills-dir", "skills", "--tools-file", "shop.py")
    assert made.stdout == "Created agent clerk (version 1).\n"
    assert made.stderr == "Note: skills/broken: left out: description is missing\n"
    (tmp_path / "shop.py").unlink()
    (tmp_path / "skills").rename(tmp_path / "gone")
    shown = flux("agent", "show", "clerk").stdout
    found = json.loads(flux("agent", "show", "clerk", "--format", "json").stdout)
    for digest in (*found["digests"]["skills"].values(), *found["digests"]["tool_files"].values()):
        assert f"  digest: {digest}\n" in shown
    definition = found["definition"]
    assert definition["tools_file"] == {"name": "shop.py", "source": TOOLS}
    assert definition["skills"][0]["files"] == {"reference.md": "fields\n"}
    assert shown.count("  digest: ") == 2
    assert "description: Fill in PDF forms." in shown
    assert "- reference.md" in shown
    assert "Do it." not in shown
    assert "from flux import task" not in shown
    (tmp_path / "copy.yaml").write_text(flux("agent", "export", "clerk").stdout)
    assert flux("agent", "update", "clerk", "--description", "x").returncode == 0
    assert flux("agent", "apply", "copy.yaml").stdout == "Applied agent clerk (version 3).\n"
    again = json.loads(flux("agent", "show", "clerk", "--format", "json").stdout)["definition"]
    assert again == definition


@pytest.mark.behaviour("cli:agents:shipped")
def test_what_cannot_be_read_is_one_line(flux: Flux, tmp_path: Path) -> None:
    complains(flux(*CREATE, "--skills-dir", "skills", "--strict"), 2, "skills/broken", "description is missing")
    complains(flux(*CREATE, "--skills-dir", "nowhere"), 2, "nowhere: no such file or directory")
    complains(flux(*CREATE, "--tools-file", "nowhere.py"), 2, "nowhere.py: no such file or directory")
    (tmp_path / "bad.py").write_text("from flux import task\n@task\ndef price(item): pass\n")
    complains(flux(*CREATE, "--tools-file", "bad.py"), 2, "bad.py: line 3: tool 'price'", "needs a type hint")


@pytest.mark.behaviour("cli:agents:directory")
def test_a_directory_brings_its_tools_and_skills(flux: Flux, tmp_path: Path) -> None:
    folder = tmp_path / "clerk"
    skill(folder, "pdf-forms", "name: pdf-forms\ndescription: Fill in PDF forms.")
    (folder / "tools").mkdir()
    (folder / "tools" / "shop.py").write_text(TOOLS)
    (folder / "tools" / "_shared.py").write_text("not a tool")
    (folder / "instructions.md").write_text("Help.")
    (folder / "agent.yaml").write_text("model: scripted/demo\ntools: [ask_user]\n")
    assert flux("agent", "apply", "clerk").stdout == "Applied agent clerk (version 1).\n"
    made = define_from(folder, {})
    assert made.tools == ("ask_user", {"file": {"name": "shop.py", "source": TOOLS}})
    assert [one.name for one in made.skills] == ["pdf-forms"]


@pytest.mark.behaviour("cli:agents:shipped")
def test_paths_are_taken_from_the_file_that_names_them(flux: Flux, tmp_path: Path) -> None:
    folder = tmp_path / "deep"
    folder.mkdir()
    text = "name: clerk\nmodel: scripted/demo\nsystem_prompt: Help.\n"
    more = "tools:\n  - file: ../shop.py\nskills_dir: ../skills\nskills:\n  - {name: tea, description: Make tea.}\n"
    (folder / "agent.yaml").write_text(text + more)
    told: list[str] = []
    made = define_from(folder / "agent.yaml", {}, warn=told.append)
    assert [one.name for one in made.skills] == ["tea", "pdf-forms"]
    assert [line.rpartition(": ")[2] for line in told] == ["description is missing"]
    assert made.tools == ({"file": {"name": "shop.py", "source": TOOLS}},)
    with pytest.raises(DefinitionInvalid, match="description is missing"):
        define_from(folder / "agent.yaml", {}, strict=True)
    for wrong in ("tools: [{file: none.py}]", "tools_file: none.py", "tools_file: ..", 'skills_dir: "a\\0b"'):
        (folder / "agent.yaml").write_text(f"{text}{wrong}\n")
        with pytest.raises(DefinitionInvalid):
            define_from(folder / "agent.yaml", {})


PROGRAM = """
import asyncio

from flux import task
from flux.tasks.ai import SkillCatalog, agent
from flux.tasks.ai.tools import files


@task
async def price(item: str) -> int:
    return 3


async def main() -> None:
    skills = SkillCatalog.from_directory("skills")
    helper = await agent("Help.", model="scripted/demo", tools=[*files(timeout=5), price], skills=skills)
    for said in ("use pdf-forms", "read skill://pdf-forms/reference.md", 'call price {"item": "tea"}'):
        print(await helper(said))


asyncio.run(main())
"""


@pytest.mark.behaviour("skills:agent:in-code")
def test_an_agent_made_in_code_has_skills_and_groups_of_tools(flux: Flux, tmp_path: Path) -> None:
    assert flux("agent", "list").returncode == 0
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for answer in ("- skill://pdf-forms/reference.md", "1\tfields", "```\n3\n```"):
        assert answer in done.stdout


@pytest.mark.behaviour("mcp:config:flag")
def test_mcp_servers_are_given_by_a_flag(flux: Flux) -> None:
    made = flux(*CREATE, "--mcp-server", "https://one.example/mcp", "--mcp-server", "http://127.0.0.1:9/sse")
    assert made.returncode == 0, made.stderr
    shown = json.loads(flux("agent", "show", "clerk", "--format", "json").stdout)
    assert [server["url"] for server in shown["definition"]["mcp_servers"]] == [
        "https://one.example/mcp",
        "http://127.0.0.1:9/sse",
    ]
    wrong = flux("agent", "update", "clerk", "--mcp-server", "nowhere")
    assert (wrong.returncode, "must be an http:// or https:// address" in wrong.stderr) == (2, True)
