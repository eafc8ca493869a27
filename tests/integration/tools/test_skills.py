"""Skills in directories, as they are loaded and used."""

import base64
import os
from pathlib import Path

import pytest

from flux.errors import DefinitionInvalid
from flux.sandboxes.host import LocalSandbox
from flux.tools.base import Done, Failed, ToolContext
from flux.tools.skill import MAX_BYTES, Binary
from flux.tools.skills import SkillCatalog

PDF = "---\nname: pdf-forms\ndescription: Fill in PDF forms.\n---\n\n# How\n\nRead them first.\n"


def write(directory: Path, name: str, text: str, **files: bytes) -> Path:
    folder = directory / name
    folder.mkdir(parents=True)
    (folder / "SKILL.md").write_text(text)
    for path, data in files.items():
        place = folder / path.replace("__", "/").replace("_dot_", ".")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    return folder


@pytest.mark.behaviour("skills:directory:loaded")
def test_a_directory_of_skills_is_loaded_with_its_files(tmp_path: Path) -> None:
    text = (
        "---\nname: pdf-forms\ndescription: >\n  Fill in\n  PDF forms.\nlicense: MIT\ncompatibility: needs a shell\n"
        "allowed-tools: Bash(git:*) Read\nmetadata:\n  version: 1.0\n  author: me\n---\nRead them first.\n"
    )
    write(tmp_path, "pdf-forms", text, reference_dot_md=b"fields", assets__logo=b"\x89PNG\0\xff")
    write(tmp_path, "alpha", "---\r\nname: alpha\r\ndescription: First: of all.\r\n---\r\nDo.\r\n")
    (tmp_path / "notes").mkdir()
    (tmp_path / "pdf-forms" / ".git").mkdir()
    (tmp_path / "pdf-forms" / ".git" / "config").write_text("not part of it")
    catalog = SkillCatalog.from_directory(tmp_path)
    assert [skill.name for skill in catalog] == ["alpha", "pdf-forms"]
    skill = catalog["pdf-forms"]
    assert (skill.description, skill.instructions) == ("Fill in PDF forms.", "Read them first.")
    assert (skill.license, skill.compatibility) == ("MIT", "needs a shell")
    assert skill.allowed_tools == ("Bash(git:*)", "Read")
    assert skill.metadata == {"version": "1.0", "author": "me"}
    assert skill.files == {
        "assets/logo": Binary(base64=base64.b64encode(b"\x89PNG\0\xff").decode()),
        "reference.md": "fields",
    }
    assert skill.data("assets/logo") == b"\x89PNG\0\xff"
    assert catalog["alpha"].description == "First: of all."
    assert catalog.warnings == ()
    only = SkillCatalog.from_directory(tmp_path / "alpha")
    assert [skill.digest for skill in only] == [catalog["alpha"].digest]


@pytest.mark.behaviour("skills:directory:malformed")
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("no fields", "SKILL.md must begin with a line --- and fields in YAML"),
        ("---\nname: x\n", "SKILL.md: the fields must end with a line ---"),
        ("---\n- name\n---\n", "SKILL.md: the fields must be a mapping"),
        ("---\nname: wrong\n---\n", "description is missing"),
        ("---\nname: wrong\ndescription: ' '\n---\n", "description is missing"),
        ("---\nname: a/b\ndescription: d\n---\n", "name: 'a/b' must be one line of 1 to 128 characters"),
        ("---\nname: ../b\ndescription: d\n---\n", "name: '../b' must be one line"),
        ("---\nname: wrong\ndescription: " + "d" * 9000 + "\n---\n", "description: String should have at most 8000"),
        ("---\nname: [\ndescription: d\n---\n", "SKILL.md: the fields cannot be read: line 2, column"),
        ("---\na: &a [x]\nb: *a\nname: x\ndescription: d\n---\n", "aliases are not allowed"),
        ("---\nname: x\nname: y\ndescription: d\n---\n", "duplicate key 'name'"),
        ("---\nname: !!python/object:os.system x\ndescription: d\n---\n", None),
        ("---\nname: " + "[" * 5000 + "\ndescription: d\n---\n", "the fields cannot be read: "),
    ],
)
def test_one_malformed_skill_is_left_out_with_a_warning(tmp_path: Path, text: str, reason: str | None) -> None:
    write(tmp_path, "good", "---\nname: good\ndescription: d\n---\n")
    write(tmp_path, "wrong", text)
    catalog = SkillCatalog.from_directory(tmp_path)
    if reason is None:
        assert len(catalog) == 2  # a tag means nothing: every value is text
        return
    assert [skill.name for skill in catalog] == ["good"]
    (warning,) = catalog.warnings
    assert warning.startswith(f"{tmp_path / 'wrong'}: left out: ")
    assert reason in warning
    assert "\n" not in warning
    with pytest.raises(DefinitionInvalid, match="wrong: "):
        SkillCatalog.from_directory(tmp_path, strict=True)


@pytest.mark.behaviour("skills:directory:safe")
def test_links_special_files_and_what_is_too_large_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    skills = tmp_path / "skills"
    write(skills, "good", PDF.replace("pdf-forms", "good"))
    (write(skills, "linked", PDF) / "x").symlink_to(tmp_path / "secret")
    (write(skills, "linked-directory", PDF) / "d").symlink_to(tmp_path)
    (skills / "whole").symlink_to(write(tmp_path, "elsewhere", PDF))
    os.mkfifo(write(skills, "pipe", PDF) / "pipe")
    write(skills, "large", PDF, data=b"x" * (MAX_BYTES + 1))
    write(skills, "many", PDF, **{f"f{number}": b"" for number in range(501)})
    write(skills, "odd", PDF).joinpath("a\\b").touch()
    folder = write(skills, "deep", PDF)
    (folder / "/".join("d" * 20)).mkdir(parents=True)
    write(skills, "latin", PDF).joinpath("SKILL.md").write_bytes(b"---\nname: \xff\n---\n")
    main = write(skills, "main", PDF) / "SKILL.md"
    main.unlink()
    main.symlink_to(tmp_path / "secret")
    catalog = SkillCatalog.from_directory(skills)
    assert [skill.name for skill in catalog] == ["good"]
    reasons = {Path(line.split(": left out: ")[0]).name: line.split(": left out: ")[1] for line in catalog.warnings}
    assert reasons == {
        "deep": "d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d: its directories are nested more than 16 deep",
        "large": "it has more than 2,000,000 bytes",
        "latin": "SKILL.md is not UTF-8 text",
        "linked": "x is a symbolic link",
        "linked-directory": "d is a symbolic link",
        "main": "SKILL.md is a symbolic link",
        "many": "it has more than 500 files",
        "odd": r"files: the file 'a\\b' cannot be part of a skill: it holds a \\"[:-1],
        "pipe": "pipe is no regular file",
        "whole": "it is a symbolic link",
    }


@pytest.mark.behaviour("skills:directory:malformed")
def test_without_a_skill_or_a_directory_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DefinitionInvalid, match=r"none: no such file or directory$"):
        SkillCatalog.from_directory(tmp_path / "none")
    with pytest.raises(DefinitionInvalid, match=r"there is no skill in it, that is, no directory with a SKILL\.md$"):
        SkillCatalog.from_directory(tmp_path)
    write(tmp_path, "wrong", "nothing")
    with pytest.raises(DefinitionInvalid, match=r"there is no skill in it.*wrong: left out: SKILL\.md must begin"):
        SkillCatalog.from_directory(tmp_path)
    write(tmp_path, "one", PDF)
    write(tmp_path, "two", PDF)
    catalog = SkillCatalog.from_directory(tmp_path)
    assert len(catalog) == 1
    assert f"{tmp_path / 'two'}: left out: there are two skills with the name 'pdf-forms'" in catalog.warnings


def context(tmp_path: Path, watched: list[str]) -> ToolContext:
    return ToolContext("s", "c", LocalSandbox(tmp_path, {}), output=watched.append)


@pytest.mark.behaviour("skills:use:instructions")
async def test_a_skill_is_used_by_name(tmp_path: Path) -> None:
    write(tmp_path, "pdf-forms", PDF, reference_dot_md=b"fields", logo=b"\0")
    catalog, watched = SkillCatalog.from_directory(tmp_path), list[str]()
    assert catalog.prompt() == (
        "# Skills\n\nInstructions for particular tasks. When one fits, call `use_skill` with its name before you begin."
        "\n\n- pdf-forms: Fill in PDF forms."
    )
    tool = catalog.tool()
    assert (tool.name, tool.effect) == ("use_skill", "read")
    assert await tool.run({"name": "pdf-forms"}, context(tmp_path, watched)) == Done(
        "# Skill pdf-forms\n\n# How\n\nRead them first.\n\nFiles of this skill, to be read with read_file:\n"
        "- skill://pdf-forms/logo (no text)\n- skill://pdf-forms/reference.md"
    )
    assert await tool.run({"name": "pdf"}, context(tmp_path, watched)) == Failed(
        "unknown skill 'pdf'; did you mean 'pdf-forms'?"
    )
    assert await catalog.read("pdf-forms/reference.md") == b"fields"
    assert await catalog.read("pdf-forms/SKILL.md") == b"# How\n\nRead them first."
    for path in ("pdf-forms/x", "pdf-forms", "pdf-forms/../../x", "other/x", ""):
        with pytest.raises(FileNotFoundError):
            await catalog.read(path)
    assert "".join(watched) == ""


@pytest.mark.behaviour("skills:use:untrusted")
async def test_the_use_of_a_skill_of_the_workspace_shows_its_digest(tmp_path: Path) -> None:
    write(tmp_path, "pdf-forms", PDF)
    loaded, watched = SkillCatalog.from_directory(tmp_path), list[str]()
    catalog = SkillCatalog(loaded, untrusted=["pdf-forms"])
    done = await catalog.tool().run({"name": "pdf-forms"}, context(tmp_path, watched))
    assert isinstance(done, Done)
    expected = f"[pdf-forms comes from the workspace, digest {loaded['pdf-forms'].digest}: "
    assert done.content.startswith(expected)
    assert "".join(watched).startswith(expected)
