"""Skills as a part of an agent: those of its definition, of a directory on the worker, and of the workspace."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from flux.agents.define.definition import AgentDefinition
from flux.agents.define.shipped import check_names
from flux.agents.parts.kept import Recent
from flux.agents.turn.binding import Binder
from flux.agents.turn.kits import Kit
from flux.agents.turn.loop import Session
from flux.tools.skill import Skill
from flux.tools.skill_files import Loaded, read_directory
from flux.tools.skills import SCHEME, USE_SKILL, SkillCatalog
from flux.tools.workspace_skills import workspace_skills

logger = logging.getLogger(__name__)

#: Kits that are kept for the next run.
KEPT = 64


class SkillsKit:
    """Makes the kit of an agent's skills."""

    def __init__(self, binder: Binder) -> None:
        self._binder = binder
        self._kits: Recent[tuple[str, ...], Kit] = Recent(KEPT)

    async def __call__(self, session: Session) -> Kit | None:
        """The catalogue, the tool `use_skill`, and the readers of `skill://`.

        :raises DefinitionInvalid: the directory of skills cannot be used on this worker
        """
        definition = session.policy.definition
        if definition.approval_mode == "never":
            return None
        read = await self._of_worker(definition)
        found = await self._of_workspace(session)
        if not (definition.skills or read or found):
            return None
        key = (definition.digest, *(skill.digest for skill in (*read, *found)))
        kit = self._kits.get(key)
        if kit is None:
            kit = self._kit(definition, (*definition.skills, *read), found)
            self._kits.put(key, kit)
        return kit

    def _kit(self, definition: AgentDefinition, own: Sequence[Skill], found: Sequence[Skill]) -> Kit:
        offered = self._binder.tools(definition)
        check_names(own, offered)
        taken = {*offered, USE_SKILL, *(skill.name for skill in own)}
        untrusted = [skill for skill in found if skill.name not in taken]
        for skill in (skill for skill in found if skill.name in taken):
            logger.warning("the skill %s of a workspace is not used: the agent has its own", skill.name)
        catalog = SkillCatalog([*own, *untrusted], untrusted=(skill.name for skill in untrusted))
        if not len(catalog):
            return Kit()
        files = any(skill.files for skill in catalog)
        return Kit((catalog.tool(),), catalog.prompt(), {SCHEME: catalog.read}, readable=files)

    async def _of_worker(self, definition: AgentDefinition) -> tuple[Skill, ...]:
        if definition.skills_dir is None:
            return ()
        return _told(await asyncio.to_thread(read_directory, Path(definition.skills_dir))).skills

    async def _of_workspace(self, session: Session) -> tuple[Skill, ...]:
        """What the workspace brings to an agent that acts in it."""
        definition = session.policy.definition
        if not (definition.tools or definition.tools_file) or session.sandbox is None:
            return ()
        return await workspace_skills(session.sandbox)


def _told(loaded: Loaded) -> Loaded:
    for warning in loaded.warnings:
        logger.warning("skills: %s", warning)
    return loaded
