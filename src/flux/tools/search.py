"""Find files by name and lines by regular expression."""

from __future__ import annotations

import asyncio
import errno
import posixpath
import re
import shlex
import time
from collections.abc import Callable

import regex
from msgspec import Struct

from flux.sandboxes.base import HostSandbox, Sandbox
from flux.tools.base import Done, Failed, Tool, ToolContext, ToolOutcome
from flux.tools.glob import matcher
from flux.tools.kept import kept
from flux.tools.text import is_binary, lines_of, printable
from flux.tools.workspace import MAX_ENTRIES, SKIPPED, GroupConfig, builtin, joined, walk

MAX_FILES = 500
"""Paths that find_files shows."""

MAX_MATCHES = 200
"""Lines that grep shows."""

MAX_KEPT = 20_000
"""Lines of grep that are kept for reading on."""

MAX_FILE = 20_000_000
"""Bytes of the largest file that is searched without ripgrep, which needs no memory for a file's size."""

_LINE = 500
_PATTERN = 1_000
_GRACE = 5.0

_TOO_LARGE = f"{{}} has more than {MAX_FILE:,} bytes; searching it needs ripgrep (rg) on the host"

_BETWEEN = "\x1f"
"""Stands between path, number and line in what ripgrep is asked to print."""


class Most(Struct, frozen=True):
    """How much is shown at once: paths of find_files, lines of grep."""

    files: int = MAX_FILES
    matches: int = MAX_MATCHES


class SearchTools:
    """find_files, grep."""

    def __init__(self, config: GroupConfig, most: Most = Most()) -> None:  # noqa: B008 - frozen
        self._config = config
        self._most = most

    def tools(self) -> tuple[Tool, ...]:
        """The tools of the group."""
        return (
            builtin(self.find_files, self._config, "read"),
            builtin(self.grep, self._config, "read", grace=_GRACE),
        )

    async def find_files(self, context: ToolContext, pattern: str, path: str = ".") -> ToolOutcome:
        """Find files by a glob pattern; * stays within a name, ** stands for any directories.

        A pattern without / matches the file name at any depth. .git, node_modules and .venv are skipped.

        Args:
            pattern: Such as *.py, src/**/test_*.py or *.{js,ts}.
            path: The directory to search, relative to the workspace.
        """
        try:
            matches = matcher(pattern)
        except ValueError as error:
            return Failed(str(error))
        entries = await walk(context.sandbox, path)
        found = [
            printable(joined(path, entry.path))
            for entry in entries
            if entry.kind != "directory" and matches(entry.path)
        ]
        note = f"\n[stopped after {MAX_ENTRIES:,} entries]" if len(entries) >= MAX_ENTRIES else ""
        return Done(await _listed(found, "files", self._most.files, context) + note)

    async def grep(
        self, context: ToolContext, pattern: str, path: str = ".", include: str | None = None
    ) -> ToolOutcome:
        """Search the lines of text files by a regular expression.

        .git, node_modules, .venv and binary files are skipped.

        Args:
            pattern: The regular expression; (?i) at its start ignores case.
            path: The file or directory to search, relative to the workspace.
            include: A glob pattern the files must match, such as *.py.
        """
        try:
            compiled = _compiled(pattern)
            wanted = matcher(include) if include else _anything
        except (ValueError, regex.error) as error:
            return Failed(f"the pattern cannot be used: {error}")
        deadline = time.monotonic() + self._config.timeout
        try:
            found = await _by_ripgrep(context.sandbox, pattern, path, wanted, self._config.timeout)
            if found is None:
                found = await _by_python(context.sandbox, compiled, path, wanted, deadline)
        except TimeoutError:
            text = f"not finished after {self._config.timeout:g} seconds; search less, or use a simpler pattern"
            return Failed(text, timeout=True)
        return Done(await found.report(context, self._most.matches))


class Matches:
    """Matching lines as they are found: all are counted, the first are kept, the very first shown."""

    def __init__(self, base: str, wanted: Callable[[str], bool]) -> None:
        self._base = base
        self._wanted = wanted
        self._lines: list[str] = []
        self._count = 0
        self._files: set[str] = set()
        self.skipped = 0

    def add(self, path: str, number: int, line: str) -> None:
        """Line `number` of the file at `path`, which is relative to the searched directory."""
        if path and not self._wanted(path):
            return
        self._count += 1
        self._files.add(path)
        if self._count <= MAX_KEPT:
            cut = f"{line[:_LINE]} [cut]" if len(line) > _LINE else line
            self._lines.append(f"{printable(joined(self._base, path) if path else self._base)}:{number}:{cut}")

    async def report(self, context: ToolContext, most: int) -> str:
        """The first lines and the totals; where there are more, also where those are kept."""
        note = f"[{self.skipped} files of more than {MAX_FILE:,} bytes were not searched]" if self.skipped else ""
        if not self._count:
            return f"no matches {note}".rstrip()
        shown = "" if self._count <= most else f"; the first {most} are shown"
        total = f"[{self._count} matching lines in {len(self._files)} files{shown}]"
        text = "\n".join([*self._lines[:most], total, *filter(None, [note])])
        if self._count <= most:
            return text
        end = f"[the first {MAX_KEPT} of {self._count} matching lines]" if self._count > MAX_KEPT else ""
        return text + await kept("\n".join([*self._lines, *filter(None, [end])]), context)


def _anything(path: str) -> bool:
    return True


def _compiled(pattern: str) -> regex.Pattern[str]:
    if len(pattern) > _PATTERN:
        raise ValueError(f"it is longer than {_PATTERN} characters")
    return regex.compile(pattern)


async def _by_ripgrep(
    sandbox: Sandbox, pattern: str, path: str, wanted: Callable[[str], bool], timeout: float
) -> Matches | None:
    """What `rg` finds, None where it is not installed or cannot do it. TimeoutError."""
    if not isinstance(sandbox, HostSandbox):
        return None
    single = not (await sandbox.stat(path)).is_directory
    found = await sandbox.resolve(path)
    reader = _RipgrepLines(Matches(path, wanted), found if single else found.rstrip("/") + "/")
    options = (
        "--no-config --no-ignore --hidden --sort=path --line-number --no-heading --with-filename "
        "--color=never --no-messages --crlf --max-columns=4096 --max-columns-preview "
        "--field-match-separator='\\x1f'"
    )
    where = _only(found) if single else f"{_SKIPPED} -- {shlex.quote(found)}"
    command = f"rg {options} --regexp={shlex.quote(pattern)} {where}"
    result = await sandbox.exec(command, timeout=timeout, on_output=reader.feed, max_output_bytes=2_000)
    if result.timed_out:
        raise TimeoutError
    return reader.matches if result.exit_code in (0, 1) else None


_SKIPPED = " ".join(shlex.quote(f"--glob=!{name}/") for name in sorted(SKIPPED))


def _only(file: str) -> str:
    """The arguments for one file: a file that is named itself would be searched even if it is binary."""
    folder, name = posixpath.split(file)
    escaped = re.sub(r"([\x00-\x7f])", r"\\\1", name)
    return f"--max-depth=1 {shlex.quote(f'--glob={escaped}')} -- {shlex.quote(folder)}"


class _RipgrepLines:
    """Takes apart what ripgrep prints; paths are given on without `root`."""

    def __init__(self, matches: Matches, root: str) -> None:
        self.matches = matches
        self._root = root
        self._rest = ""

    def feed(self, text: str) -> None:
        """Take the next piece of output."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            match line.split(_BETWEEN, 2):
                case [path, number, content] if number.isdigit():
                    self.matches.add(path.removeprefix(self._root), int(number), content.removesuffix("\r"))


async def _by_python(
    sandbox: Sandbox, pattern: regex.Pattern[str], path: str, wanted: Callable[[str], bool], deadline: float
) -> Matches:
    """What the regex engine finds, file by file, each as a whole: so large ones are left out. TimeoutError."""
    matches = Matches(path, wanted)
    if not (await sandbox.stat(path)).is_directory:
        paths = [""]
    else:
        paths = [entry.path for entry in await walk(sandbox, path) if entry.kind == "file" and wanted(entry.path)]
    for relative in paths:
        try:
            data = await sandbox.read(joined(path, relative), limit=MAX_FILE)
        except OSError as error:
            if not relative and error.errno == errno.EFBIG:
                raise OSError(_TOO_LARGE.format(path)) from error
            if not relative:
                raise
            matches.skipped += error.errno == errno.EFBIG
            continue
        if not is_binary(data):
            for number, line in await asyncio.to_thread(_matching, pattern, data, deadline):
                matches.add(relative, number, line)
    return matches


def _matching(pattern: regex.Pattern[str], data: bytes, deadline: float) -> list[tuple[int, str]]:
    found = []
    for number, line in enumerate(lines_of(data), 1):
        # `concurrent` lets the event loop run meanwhile: a match may take exponential time.
        left = max(deadline - time.monotonic(), 0.001)
        if pattern.search(line, timeout=left, concurrent=True):
            found.append((number, line))
    return found


async def _listed(found: list[str], what: str, limit: int, context: ToolContext) -> str:
    if not found:
        return f"no {what} found"
    if len(found) <= limit:
        return "\n".join(found)
    shown = "\n".join([*found[:limit], f"[{limit} of {len(found)} {what} are shown]"])
    return shown + await kept("\n".join(found), context)
