"""Skills from directories that hold a SKILL.md: the format of agentskills.io."""

from __future__ import annotations

import errno
import os
import re
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct
from pydantic import ValidationError

from flux import strict_yaml
from flux.errors import DefinitionInvalid
from flux.suggest import unknown
from flux.tools.skill import MAIN, MAX_BYTES, MAX_FILES, Skill, check_skills, content_of

FIELDS = ("name", "description", "license", "compatibility", "allowed-tools", "metadata")
"""What the format knows in front of the instructions."""

IGNORED = frozenset({".git", "__pycache__", "node_modules", ".venv", ".DS_Store"})
"""Names that are never part of a skill."""

MAX_FIELDS = 32_000
"""Characters of what stands in front of the instructions; reading more of it could take long."""

_PUBLISHED = {"name": 64, "description": 1024, "compatibility": 500}
_DEPTH = 16
MAIN_NAMES = (MAIN, "skill.md")


class Malformed(ValueError):
    """A directory is no usable skill; says why."""


class Loaded(Struct, frozen=True):
    """The skills of a directory, and what was wrong with others: a line each."""

    skills: tuple[Skill, ...]
    warnings: tuple[str, ...]


def read_directory(directory: Path, *, strict: bool = False) -> Loaded:
    """The skills in a directory: each of its directories that holds a SKILL.md, or the directory itself.

    One that cannot be used is left out, with a warning; with `strict` the published rules hold and a
    breach is an error.

    :raises DefinitionInvalid: there is no such directory, no skill in it, or with `strict` a wrong one
    """
    skills: list[Skill] = []
    warnings: list[str] = []
    for folder in _folders(directory):
        try:
            skill, notes = read_skill(folder, strict=strict)
            check_skills((*skills, skill))
        except ValueError as error:
            if strict:
                raise DefinitionInvalid(f"{folder}: {error}") from error
            warnings.append(f"{folder}: left out: {error}")
            continue
        skills.append(skill)
        warnings += [f"{folder}: {note}" for note in notes]
    if not skills:
        why = f" ({'; '.join(warnings)})" if warnings else ""
        raise DefinitionInvalid(f"{directory}: there is no skill in it, that is, no directory with a {MAIN}{why}")
    return Loaded(tuple(sorted(skills, key=lambda skill: skill.name)), tuple(warnings))


def read_skill(folder: Path, *, strict: bool = False) -> tuple[Skill, tuple[str, ...]]:
    """The skill of a directory, and what in it breaks the published rules but can be used.

    :raises Malformed: it cannot be used, or with `strict` breaks a rule
    """
    try:
        files = dict(_files(folder))
    except OSError as error:
        raise Malformed(_reason(error)) from error
    return skill_from(files, folder.resolve().name, strict=strict)


def skill_from(files: dict[str, bytes], folder: str, *, strict: bool = False) -> tuple[Skill, tuple[str, ...]]:
    """The skill of the files of a directory that is called `folder`, and what breaks the published rules.

    :raises Malformed: it cannot be used, or with `strict` breaks a rule
    """
    main = next((name for name in MAIN_NAMES if name in files), None)
    if main is None:
        raise Malformed(f"it holds no {MAIN}")
    try:
        text = files.pop(main).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Malformed(f"{main} is not UTF-8 text") from error
    fields, body = parse(text, strict=strict)
    breaches = tuple(_breaches(fields, folder))
    if strict and breaches:
        raise Malformed("; ".join(breaches))
    return _skill(fields, body, folder, files), breaches


def parse(text: str, *, strict: bool = False) -> tuple[dict[str, Any], str]:
    """The fields and the instructions of a SKILL.md. Every value of a field is text, or a mapping or list of it.

    :raises Malformed: it does not begin with fields in YAML
    """
    lines = text.replace("\r\n", "\n").split("\n")
    if lines[0].rstrip() != "---":
        raise Malformed(f"{MAIN} must begin with a line --- and fields in YAML")
    end = next((number for number, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), None)
    if end is None:
        raise Malformed(f"{MAIN}: the fields must end with a line ---")
    written = "\n".join(lines[1:end])
    if len(written) > MAX_FIELDS:
        raise Malformed(f"{MAIN}: the fields have {len(written):,} characters, {MAX_FIELDS:,} are allowed")
    try:
        fields = _fields(written, strict)
    except ValueError as error:
        raise Malformed(f"{MAIN}: the fields cannot be read: {error}") from error
    if not isinstance(fields, dict):
        raise Malformed(f"{MAIN}: the fields must be a mapping, as in `name: …`")
    return fields, "\n".join(lines[end + 1 :]).strip()


def _fields(text: str, strict: bool) -> Any:
    try:
        return strict_yaml.load(text, texts=True)
    except ValueError:
        quoted = _COLON.sub(_quoted, text)
        if strict or quoted == text:
            raise
        return strict_yaml.load(quoted, texts=True)


#: A value that holds a colon and a blank is no YAML, but often written.
_COLON = re.compile(r"^([A-Za-z-]+): +([^\"'|>\[{#&*!].*: .*)$", re.MULTILINE)


def _quoted(found: re.Match[str]) -> str:
    value = found[2].rstrip().replace("'", "''")
    return f"{found[1]}: '{value}'"


def _breaches(fields: dict[str, Any], folder: str) -> Iterator[str]:
    """What the published rules do not allow."""
    for key in fields:
        if key not in FIELDS:
            yield unknown("field", str(key), FIELDS)
    for key in ("name", "description"):
        if not isinstance(fields.get(key), str) or not fields[key].strip():
            yield f"{key} is missing"
    for key, most in _PUBLISHED.items():
        value = fields.get(key)
        if key in fields and not isinstance(value, str):
            yield f"{key} must be text"
        elif isinstance(value, str) and len(value.strip()) > most:
            yield f"{key} has {len(value.strip()):,} characters, {most:,} are allowed"
    if not isinstance(fields.get("metadata", {}), dict):
        yield "metadata must be a mapping"
    if isinstance(fields.get("name"), str) and fields["name"].strip():
        yield from _name_breaches(unicodedata.normalize("NFKC", fields["name"].strip()), folder)


def _name_breaches(name: str, folder: str) -> Iterator[str]:
    if name != name.lower() or not all(one.isalnum() or one == "-" for one in name):
        yield f"name: {name[:100]!r} must consist of small letters, digits and hyphens"
    if name.startswith("-") or name.endswith("-") or "--" in name:
        yield f"name: {name[:100]!r} must not begin or end with a hyphen, nor hold two in a row"
    if name != unicodedata.normalize("NFKC", folder):
        yield f"name: {name[:100]!r} must be the name of the directory, {folder[:100]!r}"


def _skill(fields: dict[str, Any], body: str, folder: str, files: dict[str, bytes]) -> Skill:
    tools, metadata = fields.get("allowed-tools") or (), fields.get("metadata") or {}
    try:
        return Skill(
            name=_text(fields.get("name")) or folder,
            description=_text(fields.get("description")) or "",
            instructions=body,
            license=_text(fields.get("license")),
            compatibility=_text(fields.get("compatibility")),
            allowed_tools=tuple(_tools(tools)),
            metadata={str(key): str(value) for key, value in metadata.items()} if isinstance(metadata, dict) else {},
            files={path: content_of(data) for path, data in sorted(files.items())},
        )
    except ValidationError as error:
        raise Malformed("; ".join(_told(fault) for fault in error.errors(include_url=False))) from error


def _told(fault: Any) -> str:
    where = ".".join(str(part) for part in fault["loc"])
    if where == "description" and fault["type"] == "string_too_short":
        return "description is missing"
    message = str(fault["msg"]).removeprefix("Value error, ")
    return f"{where}: {message}" if where else message


def _text(value: Any) -> str | None:
    return value.strip() or None if isinstance(value, str) else None


def _tools(value: Any) -> list[str]:
    """`allowed-tools` as a list; it is written with blanks between, a blank inside brackets is part of a name."""
    if isinstance(value, str):
        return re.findall(r"[^\s,(]+(?:\([^)]*\))?", value)
    return [str(one) for one in value] if isinstance(value, list | tuple) else []


def _folders(directory: Path) -> Iterator[Path]:
    """The directories that hold a SKILL.md."""
    try:
        names = sorted(os.listdir(directory))
    except (OSError, ValueError) as error:  # ValueError: a path with NUL
        raise DefinitionInvalid(f"{directory}: {_reason(error)}") from error
    if any(name in names for name in MAIN_NAMES):
        yield directory.resolve()
        return
    for name in names:
        if any(os.path.lexists(directory / name / main) for main in MAIN_NAMES):
            yield directory / name


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """The files below a directory, by their path from there. Links and special files are refused.

    :raises Malformed: there is one, or there is too much
    """
    if folder.is_symlink():
        raise Malformed("it is a symbolic link")
    room, count = MAX_BYTES, 0
    for path in _walk(folder, "", _DEPTH):
        data = _read(folder / path, room)
        room, count = room - len(data), count + 1
        if count > MAX_FILES:
            raise Malformed(f"it has more than {MAX_FILES} files")
        yield path, data


def _walk(folder: Path, prefix: str, depth: int) -> Iterator[str]:
    with os.scandir(folder / prefix) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        path = prefix + entry.name
        if entry.name in IGNORED:
            continue
        if entry.is_symlink():
            raise Malformed(f"{path} is a symbolic link")
        if not entry.is_dir(follow_symlinks=False):
            yield path
        elif depth > 1:
            yield from _walk(folder, f"{path}/", depth - 1)
        else:
            raise Malformed(f"{path}: its directories are nested more than {_DEPTH} deep")


def _read(path: Path, room: int) -> bytes:
    # A pipe must not block, and what has become a link meanwhile must not be followed.
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise Malformed(f"{path.name} is no regular file")
        data = file.read(room + 1)
    if len(data) > room:
        raise Malformed(f"it has more than {MAX_BYTES:,} bytes")
    return data


def _reason(error: OSError | ValueError) -> str:
    if not isinstance(error, OSError):
        return str(error)
    if error.errno == errno.ELOOP:
        return f"{error.filename} is a symbolic link"
    return (error.strerror or str(error)).lower()
