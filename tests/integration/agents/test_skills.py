"""Skills of an agent in its sessions."""

import base64
from pathlib import Path
from typing import Any

import pytest

from flux.errors import DefinitionInvalid
from flux.events import ContextFrozen, RunFailed, ToolDone
from flux.testing import Call, Reply
from tests.integration.agents.world import World, of, outcomes

SKILL = {
    "name": "pdf-forms",
    "description": "Fill in PDF forms.",
    "instructions": "Read reference.md first.",
    "files": {"reference.md": "one\ntwo\n", "logo.png": {"base64": base64.b64encode(b"\x89PNG\0").decode()}},
}


def calling(*calls: Call) -> list[Reply]:
    return [*(Reply("", calls=(call,)) for call in calls), Reply("done")]


def workspace_skill(root: Path, name: str, description: str = "Of the workspace.") -> None:
    folder = root / ".agents" / "skills" / name
    folder.mkdir(parents=True)
    (folder / "SKILL.md").write_text(f"---\nname: {name}\ndescription: {description}\n---\nDo it.\n")


async def told(world: World) -> ContextFrozen:
    return of(await world.log(), ContextFrozen)[0]


@pytest.mark.behaviour("skills:session:used")
@pytest.mark.parametrize("tools", [["files"], []])
async def test_a_session_sees_the_catalogue_uses_a_skill_and_reads_its_files(world: World, tools: list[str]) -> None:
    script = calling(
        Call("use_skill", {"name": "pdf-forms"}),
        Call("read_file", {"path": "skill://pdf-forms/reference.md"}),
        Call("read_file", {"path": "skill://pdf-forms/logo.png"}),
        Call("read_file", {"path": "skill://pdf-forms/../reference.md"}),
        Call("read_file", {"path": "other://x"}),
        Call("read_file", {"path": "flux.db"}),
    )
    await world.agent(script, tools=tools, skills=[SKILL], system_prompt="Be brief.")
    log = await world.ask("fill it in")
    context = await told(world)
    assert context.system == (
        "Be brief.\n\n# Skills\n\nInstructions for particular tasks. When one fits, call `use_skill` with its name "
        "before you begin.\n\n- pdf-forms: Fill in PDF forms."
    )
    assert {tool["name"] for tool in context.tools} >= {"use_skill", "read_file"}
    used, text, binary, outside, other, file = (done.content for done in of(log, ToolDone))
    assert "Read reference.md first." in used
    assert "- skill://pdf-forms/reference.md" in used
    assert text == "     1\tone\n     2\ttwo"
    assert binary == "skill://pdf-forms/logo.png is a binary file of 5 bytes; it is not shown."
    assert outside == "the skill pdf-forms has no file '../reference.md'; its files: logo.png, reference.md"
    assert other == "there is nothing to read behind other://; addresses begin with: artifact://, skill://"
    assert ("is no address" in file) == (not tools)
    assert await world.faults() == []


@pytest.mark.behaviour("skills:session:read-only")
async def test_what_stands_behind_an_address_is_not_written(world: World, tmp_path: Path) -> None:
    address = "skill://pdf-forms/reference.md"
    script = calling(
        Call("write_file", {"path": address, "content": "x"}),
        Call("edit_file", {"path": address, "old_string": "one", "new_string": "x"}),
    )
    await world.agent(script, tools=["files"], tool_approvals={"write_file": False, "edit_file": False}, skills=[SKILL])
    log = await world.ask("go")
    assert [done.content for done in of(log, ToolDone)] == [f"{address} can only be read"] * 2
    assert not (tmp_path / "skill:").exists()


@pytest.mark.behaviour("skills:session:workspace")
async def test_skills_of_the_workspace_are_offered_as_what_they_are(world: World, tmp_path: Path) -> None:
    workspace_skill(tmp_path, "deploy")
    workspace_skill(tmp_path, "pdf-forms", "Another one.")
    workspace_skill(tmp_path, "read_file", "A trap.")
    (tmp_path / ".agents" / "skills" / "broken").mkdir()
    (tmp_path / ".agents" / "skills" / "broken" / "SKILL.md").write_text("nothing")
    await world.agent(calling(Call("use_skill", {"name": "deploy"})), tools=["read_file"], skills=[SKILL])
    log = await world.ask("go")
    system = (await told(world)).system
    assert system.endswith("- deploy: Of the workspace.\n- pdf-forms: Fill in PDF forms.")
    assert of(log, ToolDone)[0].content.startswith("[deploy comes from the workspace, digest ")
    assert await world.faults() == []


@pytest.mark.behaviour("skills:session:workspace")
@pytest.mark.parametrize("fields", [{}, {"tools": ["look"], "approval_mode": "never"}])
async def test_an_agent_without_tools_takes_nothing_from_its_workspace(
    world: World, tmp_path: Path, fields: dict[str, Any]
) -> None:
    workspace_skill(tmp_path, "deploy")
    await world.agent([Reply("hi")], **fields)
    await world.ask("go")
    assert (await told(world)).system == ""
    assert (await told(world)).tools == ()


@pytest.mark.behaviour("skills:session:workspace")
async def test_a_link_out_of_the_workspace_is_not_followed(world: World, tmp_path: Path) -> None:
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    workspace_skill(elsewhere, "deploy")
    (tmp_path / ".agents").symlink_to(elsewhere / ".agents")
    await world.agent([Reply("hi")], tools=["read_file"])
    await world.ask("go")
    assert "deploy" not in (await told(world)).system


@pytest.mark.behaviour("skills:session:directory")
async def test_a_directory_on_the_worker_is_read_there(world: World, tmp_path: Path) -> None:
    workspace_skill(tmp_path / "kept", "deploy")
    directory = tmp_path / "kept" / ".agents" / "skills"
    script = [Reply("first"), Reply("", calls=(Call("use_skill", {"name": "deploy"}),)), Reply("second")]
    await world.agent(script, skills_dir=str(directory))
    await world.ask("go")
    assert (await told(world)).system.endswith("- deploy: Of the workspace.")
    (directory / "deploy").rename(tmp_path / "gone")
    log = await world.ask("again")
    (failed,) = of(log, RunFailed)
    assert f"{directory}: there is no skill in it" in failed.message
    (tmp_path / "gone").rename(directory / "deploy")
    log = await world.ask("and again")
    assert outcomes(log) == [("use_skill", "success")]
    assert await world.faults() == []


@pytest.mark.behaviour("skills:create:checked")
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"skills": [SKILL, SKILL]}, "skills: there are two skills with the name 'pdf-forms'"),
        ({"skills": [{**SKILL, "name": "look"}], "tools": ["look"]}, "skills: look is the name of a tool"),
        ({"skills": [{**SKILL, "name": "use_skill"}]}, "skills: use_skill is the name of a tool"),
        ({"skills": [{**SKILL, "name": "a/b"}]}, "skills.0.name: 'a/b' must be one line"),
        ({"skills": [{**SKILL, "name": ""}]}, "skills.0.name: '' must be one line"),
        ({"skills": [{**SKILL, "name": "a\uff0fb"}]}, "skills.0.name: 'a/b' must be one line"),
        ({"skills": [{**SKILL, "description": " "}]}, "skills.0.description: is empty"),
        ({"skills": [{**SKILL, "files": {"/etc/x": ""}}]}, "'/etc/x' cannot be part of a skill: it is absolute"),
        ({"skills": [{**SKILL, "files": {"C:/x": ""}}]}, "'C:/x' cannot be part of a skill: it is absolute"),
        ({"skills": [{**SKILL, "files": {"a/../../x": ""}}]}, "it holds an empty name, . or .."),
        ({"skills": [{**SKILL, "files": {"a//x": ""}}]}, "it holds an empty name, . or .."),
        ({"skills": [{**SKILL, "files": {"a\0b": ""}}]}, "it holds a NUL or another character"),
        ({"skills": [{**SKILL, "files": {"": ""}}]}, "it holds an empty name, . or .."),
        ({"skills": [{**SKILL, "files": {"skill.md": ""}}]}, "the skill itself is no file of its own"),
        ({"skills": [{**SKILL, "files": {"a": "", "a/b": ""}}]}, "'a' is both a file and a directory"),
        ({"skills": [{**SKILL, "files": {"a": {"base64": "%"}}}]}, "is no base64"),
        ({"skills": [{**SKILL, "files": {str(n): "" for n in range(501)}}]}, "there are 501 files, 500 are allowed"),
        ({"skills": [{**SKILL, "instructions": "x" * 2_000_001}]}, "bytes, 2,000,000 are allowed"),
        ({"skills": [{**SKILL, "name": f"s{n}"} for n in range(201)]}, "there are 201 skills, 200 are allowed"),
        (
            {"skills": [{"name": f"s{n}", "description": "d", "instructions": "x" * 1_500_000} for n in range(3)]},
            "the skills have 4,500,000 bytes in all, 4,000,000 are allowed",
        ),
        ({"skills": [{**SKILL, "more": 1}]}, "unknown field 'skills.0.more'"),
        ({"skills": ["pdf"]}, "skills.0: "),
        ({"skills_dir": "skills"}, "skills_dir: must be an absolute path"),
        ({"skills_dir": "/a\0b"}, "skills_dir: must be an absolute path"),
    ],
)
async def test_what_cannot_work_is_refused_where_it_is_created(
    world: World, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(DefinitionInvalid) as caught:
        await world.agent([Reply("")], **fields)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
