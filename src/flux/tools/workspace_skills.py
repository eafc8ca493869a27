"""Skills that a workspace keeps for whoever works in it, read through the sandbox."""

from __future__ import annotations

import logging
import posixpath
from collections.abc import Sequence

from flux.sandboxes.base import Entry, Sandbox
from flux.tools.skill import MAX_BYTES, MAX_FILES, MAX_SKILLS, Skill, check_skills
from flux.tools.skill_files import IGNORED, MAIN_NAMES, Malformed, skill_from
from flux.tools.workspace import walk

logger = logging.getLogger(__name__)

WORKSPACE_SKILLS = ".agents/skills"
"""Where a workspace keeps skills of its own."""


async def workspace_skills(sandbox: Sandbox) -> tuple[Skill, ...]:
    """The skills in `.agents/skills`, by name; one that cannot be used is left out, with a warning in the log.

    A link is followed as far as the sandbox follows it, to the directory itself; in a skill it is refused.
    """
    skills: list[Skill] = []
    try:
        if not await sandbox.exists(WORKSPACE_SKILLS):
            return ()
        names = await sandbox.list(WORKSPACE_SKILLS)
    except OSError as error:
        logger.warning("no skill of the workspace is used: %s", error)
        return ()
    for name in names[:MAX_SKILLS]:
        folder = posixpath.join(WORKSPACE_SKILLS, name)
        try:
            if not any([await sandbox.exists(posixpath.join(folder, main)) for main in MAIN_NAMES]):
                continue
            skill, notes = skill_from(await _files(sandbox, folder), name)
            check_skills((*skills, skill))
        except (ValueError, OSError) as error:
            logger.warning("skills: %s is left out: %s", folder, error)
            continue
        for note in notes:
            logger.warning("skills: %s: %s", folder, note)
        skills.append(skill)
    return tuple(sorted(skills, key=lambda skill: skill.name))


async def _files(sandbox: Sandbox, folder: str) -> dict[str, bytes]:
    """The files of a skill by their path in it.

    :raises Malformed: there is a link or a special file, or too much
    """
    if (await sandbox.stat(folder)).is_symbolic_link:
        raise Malformed("it is a symbolic link")
    found: dict[str, bytes] = {}
    room = MAX_BYTES
    for entry in _part_of_it(await walk(sandbox, folder)):
        if len(found) == MAX_FILES:
            raise Malformed(f"it has more than {MAX_FILES} files")
        path = posixpath.join(folder, entry.path)
        if (await sandbox.stat(path)).size > room:
            raise Malformed(f"it has more than {MAX_BYTES:,} bytes")
        found[entry.path] = await sandbox.read(path, limit=room)
        room -= len(found[entry.path])
    return found


def _part_of_it(entries: Sequence[Entry]) -> list[Entry]:
    kept = [entry for entry in entries if not IGNORED.intersection(entry.path.split("/"))]
    for entry in kept:
        if entry.kind == "link":
            raise Malformed(f"{entry.path} is a symbolic link")
        if entry.kind == "other":
            raise Malformed(f"{entry.path} is no regular file")
    return [entry for entry in kept if entry.kind == "file"]
