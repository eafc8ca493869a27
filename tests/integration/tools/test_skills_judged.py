"""The published rules of skills, judged by the reference library."""

from pathlib import Path

import pytest
import skills_ref  # type: ignore[import-untyped]

from flux.errors import DefinitionInvalid
from flux.tools.skills import SkillCatalog

NAMES = ["good", "also-good-2", "größe", "Upper", "-x", "x-", "a--b", "a_b", "a b", "n" * 64, "n" * 65, "other"]


@pytest.mark.behaviour("skills:directory:strict")
@pytest.mark.parametrize(
    "text",
    [
        *(f"---\nname: {name}\ndescription: d\n---\nbody\n" for name in NAMES),
        "---\nname: good\ndescription: " + "d" * 1024 + "\n---\n",
        "---\nname: good\ndescription: " + "d" * 1025 + "\n---\n",
        "---\nname: good\ndescription: d\ncompatibility: " + "c" * 501 + "\n---\n",
        "---\nname: good\ndescription: d\ncompatibility: " + "c" * 500 + "\n---\n",
        "---\nname: good\ndescription: d\nlicense: MIT\nallowed-tools: Read\nmetadata:\n  a: 1\n---\n",
        "---\nname: good\ndescription: d\nversion: 1\n---\n",
        "---\nname: good\n---\n",
        "---\ndescription: d\n---\n",
        "---\nname: good\ndescription:\n---\n",
        "---\nname: good\ndescription: 1\n---\n",
        "---\nname: good\ndescription: Use it when: now\n---\n",
        "---\nname: good\nname: good\ndescription: d\n---\n",
        "name: good\ndescription: d\n",
        "---\nname: good\ndescription: d\n",
        "---\njust text\n---\n",
        "---\nname: good\ndescription: d\n---\n---\nrule\n---\n",
    ],
)
def test_strict_agrees_with_the_reference_library(tmp_path: Path, text: str) -> None:
    named = next((line[6:] for line in text.split("\n") if line.startswith("name: ")), "good")
    folder = tmp_path / ("good" if named == "other" else named)
    folder.mkdir()
    (folder / "SKILL.md").write_text(text)
    problems = skills_ref.validate(folder)
    if problems:
        with pytest.raises(DefinitionInvalid):
            SkillCatalog.from_directory(tmp_path, strict=True)
        return
    (skill,) = SkillCatalog.from_directory(tmp_path, strict=True)
    judged = skills_ref.read_properties(folder)
    assert (skill.name, skill.description, skill.license) == (judged.name, judged.description, judged.license)
    assert skill.compatibility == judged.compatibility
    assert skill.metadata == (judged.metadata or {})
    assert list(skill.allowed_tools) == (judged.allowed_tools or "").split()
