"""Where the keys of secrets come from: FLUX_SECRET_KEY, a command such as that of a keyring, or a file of the home."""

from __future__ import annotations

import importlib
import os
import subprocess
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from flux.errors import InvalidInput, Unavailable
from flux.settings import Settings

COMMAND_SECONDS = 30.0


class KeySource:
    """Finds the keys, newest first: `key` or what `command` prints, else those in the file secret.key of `home`.

    Only the file is made and changed here.
    """

    def __init__(self, home: Path, key: str | None = None, command: Sequence[str] = ()) -> None:
        self._file = home / "secret.key"
        self._key = key
        self._command = tuple(command)

    @classmethod
    def of(cls, settings: Settings) -> KeySource:
        """The source that settings choose."""
        return cls(settings.home, settings.secret_key, settings.secret_key_command)

    @property
    def origin(self) -> str:
        """Where the keys are, in words."""
        if self._key:
            return "FLUX_SECRET_KEY"
        return "secret_key_command" if self._command else str(self._file)

    def state(self) -> object:
        """Another value when the keys may have changed; None when there are none."""
        if self._key or self._command:
            return self._key or self._command
        try:
            found = self._file.stat()
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size

    def keys(self) -> str:
        """The keys; a file that is not there is made.

        :raises Unavailable: the command fails, or the file cannot be read
        """
        if self._key:
            return self._key
        if self._command:
            return self._asked()
        if not self._file.exists():
            _write(self._file, _new_key(), replace=False)
        try:
            return self._file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise Unavailable(f"the key of secrets, {self._file}, cannot be read: {error}") from error

    def add_key(self) -> str | None:
        """Before a rotation: put a fresh key in front of the newest; returns what the file held, None without one.

        :raises InvalidInput: keys are given from outside, and there is but one
        """
        if self._key or self._command:
            if len(self.keys().replace(",", " ").split()) < 2:
                raise InvalidInput(
                    f"{self.origin} gives one key; let it give a new one in front of it, NEW,OLD, to every server and "
                    "worker, start them anew, then rotate"
                )
            return None
        before = self.keys()
        newest = before.replace(",", " ").split()[:1]
        _write(self._file, "\n".join([_new_key(), *newest]), replace=True)
        return before

    def put_back(self, before: str | None) -> None:
        """Undo `add_key`."""
        if before is not None:
            _write(self._file, before.rstrip("\n"), replace=True)

    def _asked(self) -> str:
        try:
            done = subprocess.run(self._command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unavailable(f"secret_key_command cannot be run: {error}") from error
        if done.returncode or not done.stdout.strip():
            said = " ".join(done.stderr.split())[:200] or "it printed nothing"
            raise Unavailable(f"secret_key_command ended with code {done.returncode}: {said}")
        return done.stdout


def _new_key() -> str:
    key: str = importlib.import_module("flux.engine.configuration.sealing").new_key()
    return key


def _write(path: Path, text: str, *, replace: bool) -> None:
    """Write keys that are whole before they have their name; unless `replace`, who was faster stays."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    half = path.with_name(f".{uuid.uuid4().hex}")
    try:
        with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{text}\n")
            file.flush()
            os.fsync(file.fileno())
        if replace:
            half.replace(path)
        else:
            with suppress(FileExistsError):
                os.link(half, path)
    finally:
        half.unlink(missing_ok=True)
