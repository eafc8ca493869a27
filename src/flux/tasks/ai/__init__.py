"""Agents in workflows: import paths that users know."""

from flux.agents.inline import agent
from flux.tools.skills import Skill, SkillCatalog

__all__ = ["Skill", "SkillCatalog", "agent"]
