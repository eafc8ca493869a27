"""A skill: instructions for one kind of task, and the files that belong to them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import unicodedata
from collections.abc import Iterable
from functools import cached_property

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

MAX_FILES = 500
"""Files of one skill."""

MAX_BYTES = 2_000_000
"""Bytes of one skill: its instructions and its files."""

MAX_SKILLS = 200
"""Skills of one agent."""

MAX_ALL_BYTES = 4_000_000
"""Bytes of all skills of one agent."""

MAX_DESCRIPTION = 8_000
"""Characters of a description; the model sees as much of each one in every prompt."""

MAIN = "SKILL.md"

_NAME = 128
_PATH = 500


class Binary(BaseModel):
    """The bytes of a file that is no text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base64: str

    @field_validator("base64")
    @classmethod
    def _decodes(cls, value: str) -> str:
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"is no base64: {error}") from error
        return value


class Skill(BaseModel):
    """Instructions that a model asks for by name; it sees the description always.

    `files` are what belongs to them, by their path with `/` between names. `allowed_tools` is what the author
    wrote; it lets nothing run that would ask.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str = Field(min_length=1, max_length=MAX_DESCRIPTION)
    instructions: str = ""
    license: str | None = None
    compatibility: str | None = None
    allowed_tools: tuple[str, ...] = ()
    metadata: dict[str, str] = {}
    files: dict[str, str | Binary] = {}

    @field_validator("name")
    @classmethod
    def _usable_name(cls, name: str) -> str:
        name = unicodedata.normalize("NFKC", name)
        usable = name.isprintable() and name == name.strip() and not set(name) & {"/", "\\"}
        if not usable or not 0 < len(name) <= _NAME or name.startswith("."):
            raise ValueError(f"{name[:200]!r} must be one line of 1 to {_NAME} characters, without slashes")
        return name

    @field_validator("files")
    @classmethod
    def _safe_files(cls, files: dict[str, str | Binary]) -> dict[str, str | Binary]:
        check_paths(files)
        return files

    @field_validator("description")
    @classmethod
    def _says_something(cls, description: str) -> str:
        if not description.strip():
            raise ValueError("is empty")
        return description

    @model_validator(mode="after")
    def _small_enough(self) -> Skill:
        if self.size > MAX_BYTES:
            raise ValueError(f"the skill {self.name} has {self.size:,} bytes, {MAX_BYTES:,} are allowed")
        return self

    @cached_property
    def size(self) -> int:
        """Bytes of the instructions and the files."""
        return len(self.instructions.encode(errors="replace")) + sum(map(_size, self.files.values()))

    @cached_property
    def digest(self) -> str:
        """The identity of the skill's content."""
        whole = json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(whole.encode()).hexdigest()[:32]

    def data(self, path: str) -> bytes:
        """The bytes of a file; those of SKILL.md are the instructions.

        :raises FileNotFoundError: the skill has no such file
        """
        if path == MAIN:
            return self.instructions.encode()
        found = self.files.get(path)
        if found is None:
            named = ", ".join(sorted(self.files)[:20]) or "none"
            raise FileNotFoundError(f"the skill {self.name} has no file {path!r}; its files: {named}")
        return found.encode() if isinstance(found, str) else base64.b64decode(found.base64)


def content_of(data: bytes) -> str | Binary:
    """A file's bytes as they are stored: as text where they are some."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return Binary(base64=base64.b64encode(data).decode())
    return Binary(base64=base64.b64encode(data).decode()) if "\0" in text else text


def check_paths(paths: Iterable[str]) -> None:
    """Refuse paths that could mean a file outside a directory, or two files at once.

    :raises ValueError: one cannot be used
    """
    found = list(paths)
    if len(found) > MAX_FILES:
        raise ValueError(f"there are {len(found):,} files, {MAX_FILES} are allowed")
    for path in found:
        problem = _problem(path)
        if problem:
            raise ValueError(f"the file {path[:200]!r} cannot be part of a skill: {problem}")
    folders = {"/".join(path.split("/")[:depth]) for path in found for depth in range(1, path.count("/") + 1)}
    both = folders.intersection(found)
    if both:
        raise ValueError(f"{min(both)!r} is both a file and a directory")


def check_skills(skills: Iterable[Skill]) -> None:
    """Refuse skills that no agent can have together.

    :raises ValueError: two have one name, or there are too many, or too large ones
    """
    names: set[str] = set()
    size = 0
    for skill in skills:
        if skill.name in names:
            raise ValueError(f"there are two skills with the name {skill.name!r}")
        names.add(skill.name)
        size += skill.size
    if len(names) > MAX_SKILLS:
        raise ValueError(f"there are {len(names)} skills, {MAX_SKILLS} are allowed")
    if size > MAX_ALL_BYTES:
        raise ValueError(f"the skills have {size:,} bytes in all, {MAX_ALL_BYTES:,} are allowed")


def _problem(path: str) -> str | None:
    names = path.split("/")
    if not path.isprintable():
        return "it holds a NUL or another character that cannot be shown" if path else "it is empty"
    if path.startswith("/") or (len(path) > 1 and path[1] == ":"):
        return "it is absolute"
    if "\\" in path:
        return "it holds a \\"
    if ".." in names or "." in names or "" in names:
        return "it holds an empty name, . or .."
    if path.casefold() == MAIN.casefold():
        return "the skill itself is no file of its own"
    return f"it has more than {_PATH} characters" if len(path) > _PATH else None


def _size(content: str | Binary) -> int:
    if isinstance(content, str):
        return len(content.encode(errors="replace"))
    return len(content.base64) * 3 // 4
