"""`flux principals`, `roles`, `auth` and `server admin-key` as a person meets them, with a server that asks."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from flux.surfaces.cli.main import main
from tests.provider import AUDIENCE, CLIENT, identity_provider, visit


class Ended(NamedTuple):
    """What a command left."""

    returncode: int
    stdout: str
    stderr: str


Flux = Callable[..., Ended]


def environment(folder: Path, **more: str) -> dict[str, str]:
    base = {"PATH": os.environ["PATH"], "HOME": str(folder), "FLUX_HOME": str(folder / "home"), "LANG": "C.UTF-8"}
    return {**base, "FLUX_SECURITY__AUTH__API_KEYS__ENABLED": "true", **more}


@pytest.fixture
def flux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Flux:
    """Run the command in this process, with an empty home, API keys being on."""
    monkeypatch.setattr("flux.surfaces.cli.connect.settle_memory", lambda: None)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, **more: str) -> Ended:
        with monkeypatch.context() as patched:
            for name in [name for name in os.environ if name.startswith(("FLUX_", "XDG_"))]:
                patched.delenv(name)
            for name, value in environment(tmp_path, **more).items():
                patched.setenv(name, value)
            capsys.readouterr()
            with pytest.raises(SystemExit) as ended:
                main(arguments)
            return Ended(int(ended.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def issuer(require_tool: Callable[[str], str], require_package: Callable[[str], None]) -> Iterator[str]:
    node = require_tool("node")
    require_package("oidc-provider")
    with identity_provider(node) as url:
        yield url


@pytest.fixture
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a server with API keys, and with a provider if the test has one."""
    more = oidc(request.getfixturevalue("issuer")) if "issuer" in request.fixturenames else {}
    command = [sys.executable, "-m", "flux", "start", "server", "--port", "0"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(tmp_path, **more), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield next(word for word in line.split() if word.startswith("http"))
        process.terminate()


def oidc(issuer: str) -> dict[str, str]:
    variable = "FLUX_SECURITY__AUTH__OIDC__"
    return {
        f"{variable}ENABLED": "true",
        f"{variable}ISSUER": issuer,
        f"{variable}AUDIENCE": AUDIENCE,
        f"{variable}CLIENT_ID": CLIENT,
    }


@pytest.mark.behaviour("cli:principals:life")
def test_the_first_admin_lets_others_in(flux: Flux, server: str) -> None:
    made = flux("server", "admin-key")
    assert (made.returncode, made.stderr) == (0, "")
    key = made.stdout.removesuffix("\n")
    assert re.fullmatch(r"flux_[\w-]{43}", key)
    taken = flux("server", "admin-key")
    assert (taken.returncode, taken.stdout) == (1, "")
    assert "has a key 'first' already" in taken.stderr

    refused = flux("principals", "list")
    assert refused.returncode == 1
    assert refused.stderr.startswith("Error: Missing or invalid Authorization header; run `flux auth login`")
    page = flux("agent", "start", "helper", "--mode", "web", "--port", "0")
    assert (page.returncode, page.stdout) == (1, "")
    assert page.stderr == "Agent process started without a token; set FLUX_AUTH_TOKEN or run `flux auth login`\n"
    admin = {"FLUX_AUTH_TOKEN": key}
    created = flux("principals", "create", "ci", "--type", "service_account", "--role", "operator", **admin)
    assert created.stdout == "Created ci (roles: operator).\n"
    own = flux("principals", "create-key", "ci", "--name", "deploy", "--expires", "30d", **admin).stdout.strip()
    assert flux("auth", "test-token", own, **admin).stdout.startswith("Subject: ci\nRoles: operator\nUntil: ")
    listed = json.loads(flux("principals", "list-keys", "ci", "--format", "json", **admin).stdout)
    assert [(row["name"], row["created_by"]) for row in listed] == [("deploy", "admin")]
    assert own not in json.dumps(listed)
    assert flux("principals", "grant", "ci", "viewer", **admin).stdout == "ci has roles: operator, viewer.\n"
    assert flux("principals", "revoke", "ci", "--role", "operator", **admin).stdout == "ci has roles: viewer.\n"
    denied = flux("config", "set", "city", "Rome", FLUX_AUTH_TOKEN=own)
    assert (denied.returncode, denied.stderr) == (1, "Error: this needs the permission config:city:manage\n")
    assert "execution:*:read" in flux("auth", "permissions", FLUX_AUTH_TOKEN=own).stdout.splitlines()
    assert flux("principals", "disable", "ci", **admin).stdout == "Disabled ci.\n"
    assert "not valid" in flux("agent", "list", FLUX_AUTH_TOKEN=own).stderr
    assert flux("principals", "enable", "ci", **admin).stdout == "Enabled ci.\n"
    assert flux("principals", "revoke-key", "ci", "--name", "deploy", **admin).stdout == "Revoked key deploy of ci.\n"
    gone = flux("auth", "test-token", own)
    assert gone.returncode == 1
    assert "State: active" in flux("principals", "show", "ci", **admin).stdout
    assert flux("principals", "delete", "ci", **admin).stdout == "Deleted ci.\n"
    assert [line.split()[0] for line in flux("principals", "list", **admin).stdout.splitlines()] == ["SUBJECT", "admin"]


@pytest.mark.behaviour("cli:roles:life")
def test_roles_are_made_cloned_changed_and_removed(flux: Flux) -> None:
    made = flux("roles", "create", "talker", "--permissions", "agent:helper:start,workflow:agents:agent_chat:run")
    assert made.stdout == "Created role talker (2 permissions).\n"
    assert flux("roles", "clone", "viewer", "--name", "watcher").stdout == "Created role watcher (6 permissions).\n"
    assert flux("roles", "update", "watcher", "--remove", "config:*:read", "--add", "worker:*:read").returncode == 0
    shown = flux("roles", "show", "watcher").stdout.splitlines()
    assert "worker:*:read" in shown
    assert "config:*:read" not in shown
    names = [row["name"] for row in json.loads(flux("roles", "list", "--format", "json").stdout)]
    assert names == ["admin", "operator", "viewer", "worker", "talker", "watcher"]
    fixed = flux("roles", "update", "viewer", "--add", "worker:*:read")
    assert (fixed.returncode, "built in" in fixed.stderr) == (1, True)
    wrong = flux("roles", "create", "odd", "--permissions", "agent::start")
    assert (wrong.returncode, "segments between colons" in wrong.stderr) == (2, True)
    assert flux("roles", "delete", "talker").stdout == "Deleted role talker.\n"


@pytest.mark.behaviour("cli:auth:login")
def test_a_person_logs_in_and_out(flux: Flux, server: str, issuer: str, tmp_path: Path) -> None:
    admin = {"FLUX_AUTH_TOKEN": flux("server", "admin-key").stdout.strip()}
    flux("principals", "create", "ann", "--role", "viewer", **admin)
    assert flux("auth", "status").returncode == 1
    for options in (["--browser"], []):
        command = [sys.executable, "-m", "flux", "auth", "login", "--no-open", *options]
        with subprocess.Popen(
            command, cwd=tmp_path, env=environment(tmp_path, **oidc(issuer)), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            assert process.stderr is not None
            asyncio.run(visit(process.stderr.readline().removeprefix("Open ").strip()))
            said, _ = process.communicate(timeout=40)
        assert said == f"Logged in at {server} as ann.\n"
    assert flux("auth", "status").stdout.startswith(f"Server: {server}\nBy: login\nSubject: ann\nIssuer: {issuer}")
    assert flux("agent", "list").returncode == 0
    assert "Roles: viewer" in flux("auth", "test-token").stdout
    assert "Subject: admin" in flux("auth", "test-token", **admin).stdout
    assert flux("auth", "logout").stdout == f"Logged out at {server}.\n"
    assert flux("agent", "list").returncode == 1


@pytest.mark.behaviour("cli:auth:login")
def test_a_login_needs_to_know_where(flux: Flux) -> None:
    wrong = flux("auth", "login")
    assert (wrong.returncode, "--issuer" in wrong.stderr) == (2, True)
    away = flux("auth", "login", "--issuer", "http://127.0.0.1:9", "--audience", "x")
    assert (away.returncode, "does not answer" in away.stderr) == (1, True)
    clear = flux("auth", "login", "--issuer", "http://id.example.com", "--audience", "x")
    assert (clear.returncode, "must be https" in clear.stderr) == (1, True)
