"""What a model is told when the application has it use a skill."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from flux.tools.skill import Skill
from flux.tools.skills import told


def skill_text(skill: Skill, args: Mapping[str, Any] | None) -> str:
    """The message that has a skill used. What it says itself is part of it, so nothing has to be looked up."""
    parts = [f"Use the skill {skill.name}: {skill.description}"]
    if skill.instructions or skill.files:
        parts.append(told(skill, "read"))
    if args:
        shown = msgspec.json.format(msgspec.json.encode(args, enc_hook=str)).decode()
        parts.append(f"Arguments:\n\n```json\n{shown}\n```")
    return "\n\n".join(parts)
