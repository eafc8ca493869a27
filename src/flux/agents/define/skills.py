"""`load_skill`: a skill that belongs to the application, for its agents."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from msgspec import Struct

from flux.errors import DefinitionInvalid
from flux.tools.skill import MAIN, Skill
from flux.tools.skill_files import Malformed, read_skill


class SkillReference(Struct, frozen=True):
    """A skill that was loaded, with its instructions and files; `id` changes with them."""

    id: str
    name: str
    description: str
    skill: Skill


def load_skill(path: str | os.PathLike[str]) -> SkillReference:
    """The skill of a directory that holds a SKILL.md, or of that file itself.

    :raises DefinitionInvalid: there is none, or it cannot be used
    """
    folder = Path(path)
    if folder.name.lower() == MAIN.lower():
        folder = folder.parent
    try:
        found, _ = read_skill(folder, strict=False)
    except Malformed as error:
        raise DefinitionInvalid(f"skill {folder}: {error}", field="skills") from error
    return SkillReference(found.digest, found.name, found.description, found)


def skill_of(given: Any) -> Any:
    """What stands in a list of skills as the skill itself, or as fields of one."""
    return given.skill if isinstance(given, SkillReference) else given
