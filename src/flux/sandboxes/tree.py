"""Files in memory: a bashkit file system, seen as the workspace of a sandbox."""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bashkit import FileSystem

from flux.sandboxes.base import FileStat
from flux.sandboxes.processes import encodable

#: Links followed in one path.
MAX_LINKS = 40


class Tree:
    """The files below the absolute path `root`, which is where scripts see them.

    Every path is resolved, links included: one that leads out of `root` raises PermissionError.
    """

    def __init__(self, root: str, files: FileSystem | None = None) -> None:
        self.root = root
        self.files = files or _empty()

    def real(self, path: str, *, follow: bool = True) -> str:
        """The path below `root`, "/" being the root itself; links are resolved, the last one only with `follow`."""
        utf8(path, "a path")
        todo = posixpath.join(self.root, path).split("/")
        base, done, links = self.root.split("/")[1:], list[str](), 0
        todo.reverse()
        while todo:
            name = todo.pop()
            if name == "..":
                del done[-1:]
            if name in ("", ".", ".."):
                continue
            done.append(name)
            inside = done[: len(base)] == base
            if not inside or not (follow or any(todo)) or self._kind(_below(done, base)) != "symlink":
                continue
            links += 1
            if links > MAX_LINKS:
                raise _error(errno.ELOOP, path)
            target = self.files.read_link(_below(done, base))
            done = [] if target.startswith("/") else done[:-1]
            todo += reversed(target.split("/"))
        if done[: len(base)] != base:
            raise PermissionError(f"{path!r} is outside the workspace")
        return _below(done, base)

    def look(self, path: str, *, follow: bool = True) -> tuple[str, dict[str, Any]]:
        """The resolved path and what is there. FileNotFoundError, NotADirectoryError."""
        real = self.real(path, follow=follow)
        found = self._stat(real)
        if found is None:
            self._require_directories(real, path)
            raise _error(errno.ENOENT, path)
        return real, found

    def read(self, path: str, limit: int | None) -> bytes:
        """The bytes of a file."""
        real, found = self.look(path)
        if found["file_type"] != "file":
            raise _error(errno.EISDIR, path)
        if limit is not None and found["size"] > limit:
            raise _error(errno.EFBIG, path)
        return self.files.read_file(real)

    def write(self, path: str, data: bytes) -> None:
        """Replace a file's content; missing parents are made."""
        real = self.real(path)
        if self._kind(real) == "directory":
            raise _error(errno.EISDIR, path)
        self._require_directories(real, path)
        with _told(path):
            self.files.mkdir(posixpath.dirname(real), recursive=True)
            self.files.write_file(real, data)

    def stat(self, path: str) -> FileStat:
        """What is at `path`, links followed."""
        _, found = self.look(path)
        itself = self._kind(self.real(path, follow=False))
        return FileStat(
            is_file=found["file_type"] == "file",
            is_directory=found["file_type"] == "directory",
            is_symbolic_link=itself == "symlink",
            size=found["size"],
            mtime=found["modified"],
        )

    def names(self, path: str) -> tuple[str, ...]:
        """The sorted names in a directory."""
        real, found = self.look(path)
        if found["file_type"] != "directory":
            raise _error(errno.ENOTDIR, path)
        return tuple(sorted(entry["name"] for entry in self.files.read_dir(real)))

    def mkdir(self, path: str) -> None:
        """Make a directory and its parents."""
        real = self.real(path)
        self._require_directories(real, path)
        if self._kind(real) not in (None, "directory"):
            raise _error(errno.ENOTDIR, path)
        with _told(path):
            self.files.mkdir(real, recursive=True)

    def remove(self, path: str, *, recursive: bool) -> None:
        """Remove a file, a link (not its target), or a directory."""
        real, found = self.look(path, follow=False)
        if real == "/":
            raise PermissionError("the workspace itself cannot be removed")
        if found["file_type"] == "directory" and not recursive and self.files.read_dir(real):
            raise _error(errno.ENOTEMPTY, path)
        with _told(path):
            self.files.remove(real, recursive=found["file_type"] == "directory")

    def entries(self, below: str = "/") -> Iterator[tuple[str, dict[str, Any]]]:
        """Everything below a directory by its path under `root`, links not followed; a directory before its content."""
        for entry in self.files.read_dir(below):
            path = posixpath.join(below, entry["name"])
            yield path, entry["metadata"]
            if entry["metadata"]["file_type"] == "directory":
                yield from self.entries(path)

    def _require_directories(self, real: str, path: str) -> None:
        """NotADirectoryError when one above `real` is there and is none."""
        above = posixpath.dirname(real)
        while above != "/":
            if self._kind(above) not in (None, "directory"):
                raise _error(errno.ENOTDIR, path)
            above = posixpath.dirname(above)

    def _kind(self, real: str) -> str | None:
        found = self._stat(real)
        return None if found is None else str(found["file_type"])

    def _stat(self, real: str) -> dict[str, Any] | None:
        try:
            return self.files.stat(real)
        except RuntimeError:
            return None


def utf8(text: str, what: str) -> None:
    """OSError for text that bashkit cannot take; `what` names it."""
    encodable(text, what)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise OSError(errno.EINVAL, f"{what} must be UTF-8") from error


def _empty() -> FileSystem:
    """A file system without the directories that a new one has."""
    files = FileSystem()
    for entry in files.read_dir("/"):
        files.remove(f"/{entry['name']}", recursive=True)
    return files


def _below(names: list[str], base: list[str]) -> str:
    return "/" + "/".join(names[len(base) :])


def _error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)


@contextmanager
def _told(path: str) -> Iterator[None]:
    """Makes an OSError of what the file system refuses: mostly that it is full."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).removeprefix("io error: ")
        number = errno.EFBIG if "too large" in reason else errno.EINVAL if "unsafe" in reason else errno.ENOSPC
        raise OSError(number, reason, path) from error
