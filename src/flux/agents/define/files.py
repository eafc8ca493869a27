"""Files that a definition names: read where it is made and stored inline, because workers are other machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from flux.errors import DefinitionInvalid
from flux.tools.skills import SkillCatalog
from flux.tools.tool_file import MAX_SOURCE

Warn = Callable[[str], None]


def inline(fields: Mapping[str, Any], base: Path, *, strict: bool, warn: Warn) -> dict[str, Any]:
    """The fields with what their paths, relative to `base`, hold.

    These are tools_file, workflow_file, `file` entries of tools, and skills_dir.
    `strict`: a skill that breaks the published rules is an error, not a warning.

    :raises DefinitionInvalid: a file cannot be read
    """
    made = dict(fields)
    if isinstance(made.get("tools_file"), str):
        made["tools_file"] = tool_file(base / Path(made["tools_file"]).expanduser())
    if isinstance(made.get("workflow_file"), str):
        made["workflow_file"] = tool_file(base / Path(made["workflow_file"]).expanduser())
    if isinstance(made.get("tools"), list):
        made["tools"] = [_entry(entry, base) for entry in made["tools"]]
    directory = made.pop("skills_dir", None)
    if isinstance(directory, str):
        given = made.get("skills") or []
        read = _skills(base / Path(directory).expanduser(), strict, warn)
        made["skills"] = [*given, *read] if isinstance(given, list) else given
    elif directory is not None:
        made["skills_dir"] = directory
    if isinstance(made.get("subagents"), list):
        made["subagents"] = [
            inline(one, base, strict=strict, warn=warn) if isinstance(one, dict) else one for one in made["subagents"]
        ]
    return made


def beside(directory: Path) -> dict[str, Any]:
    """What an agent's directory brings without being named: instructions.md, tools/*.py and skills/, as paths."""
    found: dict[str, Any] = {}
    if (directory / "skills").is_dir():
        found["skills_dir"] = "skills"
    tools = [f"tools/{path.name}" for path in sorted((directory / "tools").glob("*.py")) if path.name[0] not in "._"]
    if tools:
        found["tools"] = [{"file": path} for path in tools]
    return found


def tool_file(path: Path) -> dict[str, str]:
    """A file of Python as a definition stores it.

    :raises DefinitionInvalid: it cannot be read
    """
    try:
        if path.stat().st_size > 4 * MAX_SOURCE:
            raise DefinitionInvalid(f"{path}: larger than {MAX_SOURCE:,} characters")
        return {"name": path.name, "source": path.read_text("utf-8-sig")}
    except UnicodeDecodeError as error:
        raise DefinitionInvalid(f"{path}: not UTF-8 text") from error
    except (OSError, ValueError) as error:  # ValueError: a path with NUL
        raise DefinitionInvalid(f"{path}: {str(getattr(error, 'strerror', None) or error).lower()}") from error


def _entry(entry: Any, base: Path) -> Any:
    if isinstance(entry, dict) and list(entry) == ["file"] and isinstance(entry["file"], str):
        return {"file": tool_file(base / Path(entry["file"]).expanduser())}
    return entry


def _skills(directory: Path, strict: bool, warn: Warn) -> Iterator[dict[str, Any]]:
    catalog = SkillCatalog.from_directory(directory, strict=strict)
    for warning in catalog.warnings:
        warn(warning)
    for skill in catalog:
        yield skill.model_dump(mode="json", exclude_defaults=True)
