"""What of a folder this person allows to decide where keys and data go.

A folder may come from anywhere (a clone, an archive). Its `flux.toml` could send a provider's key to a
foreign address, its `.flux` could hold a session that runs commands. Both count only once they are allowed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

HOME = "home"


def user_data(env: Mapping[str, str]) -> Path:
    """The folder of this user's own state."""
    return Path(env.get("XDG_DATA_HOME") or Path(env.get("HOME") or Path.home()) / ".local/share") / "flux"


def is_trusted(env: Mapping[str, str], path: Path) -> bool:
    """Whether a file was allowed with its present content, or a folder by its place."""
    return _read(env).get(str(path.absolute())) == _identity(path)


def trust(env: Mapping[str, str], path: Path) -> None:
    """Allow a file as it is now, or a folder.

    :raises OSError: this user's folder cannot be written
    """
    file = user_data(env) / "trusted.json"
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    allowed = _read(env) | {str(path.absolute()): _identity(path)}
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps(allowed, indent=1))
    fresh.replace(file)


def _identity(path: Path) -> str:
    return HOME if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()


def _read(env: Mapping[str, str]) -> dict[str, str]:
    try:
        allowed = json.loads((user_data(env) / "trusted.json").read_text())
    except (OSError, ValueError):
        return {}
    return allowed if isinstance(allowed, dict) else {}
