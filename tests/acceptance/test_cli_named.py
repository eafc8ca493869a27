"""`flux config` and `flux secrets` as a person meets them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest

Flux = Callable[..., subprocess.CompletedProcess[str]]


def environment(folder: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(folder), "FLUX_HOME": str(folder / "home"), "LANG": "C.UTF-8"}


@pytest.fixture
def flux(tmp_path: Path) -> Flux:
    """Run the command in an empty folder with an empty home."""

    def run(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "flux", *arguments],
            cwd=tmp_path, env=environment(tmp_path), input=given, capture_output=True, text=True, timeout=50,
            check=False,
        )  # fmt: skip

    return run


@pytest.mark.behaviour("cli:configs:life")
def test_configs_are_set_shown_listed_and_removed(flux: Flux) -> None:
    assert flux("config", "list").stderr == "No configs yet; `flux config set` sets one.\n"
    assert flux("config", "set", "version", "1.10").stdout == "Set config version.\n"
    assert flux("config", "get", "version").stdout == "1.10\n"
    flux("config", "set", "limits", '{"amount": 500}')
    assert json.loads(flux("config", "get", "limits", "--format", "json").stdout)["value"] == {"amount": 500}
    flux("config", "set", "retries", "3", "--json")
    assert json.loads(flux("config", "get", "retries", "--format", "json").stdout)["value"] == 3
    assert json.loads(flux("config", "list", "--format", "json").stdout)[0] == {"name": "limits"}
    assert flux("config", "remove", "limits").stdout == "Removed config limits.\n"
    missing = flux("config", "get", "limits")
    assert (missing.returncode, missing.stderr) == (
        1,
        "Error: there is no config 'limits'; `flux config set limits VALUE` sets it\n",
    )
    wrong = flux("config", "set", "limits", "{", "--json")
    assert wrong.returncode == 2
    assert "VALUE is not JSON" in wrong.stderr


@pytest.mark.behaviour("cli:secrets:life")
def test_secrets_are_set_shown_listed_and_removed(flux: Flux, tmp_path: Path) -> None:
    assert flux("secrets", "set", "token", given="two\nlines\n").stdout == "Set secret token.\n"
    assert flux("secrets", "get", "token").stdout == "two\nlines\n"
    flux("secrets", "set", "other", "given")
    assert json.loads(flux("secrets", "list", "--format", "json").stdout) == [{"name": "other"}, {"name": "token"}]
    assert "given" not in flux("secrets", "list").stdout
    assert flux("secrets", "remove", "token").stdout == "Removed secret token.\n"
    missing = flux("secrets", "get", "token")
    assert (missing.returncode, "`flux secrets set token` sets it" in missing.stderr) == (1, True)
    assert flux("secrets", "set", "token").returncode == 2
    for name in ("a/b", "..", "a?b", ""):
        wrong = flux("secrets", "get", name)
        assert (wrong.returncode, "is no name" in wrong.stderr) == (2, True)
    (tmp_path / "home" / "secret.key").unlink()
    lost = flux("secrets", "get", "other")
    assert (lost.returncode, lost.stderr.count("\n")) == (1, 1)
    assert "FLUX_SECRET_KEY" in lost.stderr


@pytest.mark.behaviour("cli:secrets:life")
def test_a_secret_typed_in_a_terminal_is_not_shown(flux: Flux, tmp_path: Path) -> None:
    typed = pexpect.spawn(
        sys.executable, ["-m", "flux", "secrets", "set", "token"],
        cwd=str(tmp_path), env=environment(tmp_path) | {"TERM": "dumb"}, timeout=50, encoding="utf-8",
    )  # fmt: skip
    typed.expect("Value of token:")
    typed.sendline("hidden-value")
    typed.expect("Set secret token.")
    assert "hidden-value" not in (typed.before or "")
    typed.expect(pexpect.EOF)
    typed.close()
    assert flux("secrets", "get", "token").stdout == "hidden-value\n"


@pytest.mark.behaviour("audit:cli:shown")
def test_the_key_is_rotated_and_the_audit_log_says_who_did_what(flux: Flux, tmp_path: Path) -> None:
    assert flux("audit").stderr == "Nothing was done yet.\n"
    flux("secrets", "set", "token", given="s3cr3t-token")
    assert flux("secrets", "get", "token").stdout == "s3cr3t-token\n"
    rotated = flux("secrets", "rotate-key")
    assert rotated.stdout.startswith("1 secrets and logins are encrypted with key ")
    assert len((tmp_path / "home" / "secret.key").read_text().split()) == 2
    assert flux("secrets", "get", "token").stdout == "s3cr3t-token\n"
    found = json.loads(flux("audit", "--action", "secret", "--since", "1h", "--format", "json").stdout)
    actions = [act["action"] for act in found]
    assert actions == ["secret.read", "secret.rotate", "secret.read", "secret.set"]
    shown = flux("audit", "--limit", "1").stdout
    assert "local" in shown
    assert "secret.read" in shown
    wrong = flux("audit", "--since", "yesterday")
    assert (wrong.returncode, "is no time such as 90m" in wrong.stderr) == (2, True)
    (tmp_path / "home" / "secret.key").unlink()
    lost = flux("secrets", "set", "other", "x")
    assert (lost.returncode, lost.stderr.count("\n")) == (1, 1)
    assert "nothing was changed" in lost.stderr
