"""The command line as a person meets it: one clear line for each mistake, the right exit code, nothing lost."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

Done = subprocess.CompletedProcess[str]
Flux = Callable[..., Done]


def environment(folder: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "FLUX_HOME": str(folder / "home"),
        "FLUX_SANDBOX": "local",
        "OLLAMA_HOST": "127.0.0.1:9",
        "LANG": "C.UTF-8",
    }


@pytest.fixture
def flux(tmp_path: Path) -> Flux:
    """Run the command in an empty folder with an empty home."""

    def run(*arguments: str, given: str = "", **more: str) -> Done:
        return subprocess.run(
            [sys.executable, "-m", "flux", *arguments],
            cwd=tmp_path, env=environment(tmp_path) | more, input=given, capture_output=True, text=True, timeout=50,
            check=False,
        )  # fmt: skip

    return run


@contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A server on a free port that has said so."""
    command = [sys.executable, "-m", "flux", "start", "server", "--port", "0", *arguments]
    with subprocess.Popen(
        command, cwd=folder, env=environment(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert "Flux server on http://127.0.0.1:" in process.stdout.readline()
        try:
            yield process
        finally:
            process.terminate()


def complains(done: Done, code: int, *words: str) -> None:
    """Exactly one line on stderr, with these words."""
    lines = done.stderr.strip().splitlines()
    assert (done.returncode, len(lines)) == (code, 1), done.stderr
    assert [word for word in words if word not in lines[0]] == [], lines[0]


def create(flux: Flux, name: str = "helper", model: str = "scripted/demo", **more: str) -> Done:
    return flux(
        "agent", "create", name, "--model", model, "--system-prompt", "Help.", "--tools", "system_tools", **more
    )


@pytest.mark.behaviour("cli:agents:life", "cli:agents:versions")
def test_an_agent_is_created_listed_shown_changed_exported_and_deleted(flux: Flux, tmp_path: Path) -> None:
    assert create(flux).stdout == "Created agent helper (version 1).\n"
    assert "helper" in flux("agent", "list").stdout
    assert flux("agent", "update", "helper", "--description", "Helps").stdout == "Updated agent helper (version 2).\n"
    shown = json.loads(flux("agent", "show", "helper", "--format", "json").stdout)
    assert (shown["version"], shown["definition"]["description"]) == (2, "Helps")
    assert "Helps" not in flux("agent", "show", "helper", "--version", "1").stdout
    complains(flux("agent", "export", "helper", "--version", "3"), 1, "no version 3", "flux agent versions helper")
    listed = json.loads(flux("agent", "versions", "helper", "--format", "json").stdout)
    assert [row["version"] for row in listed] == [2, 1]
    (tmp_path / "copy.yaml").write_text(flux("agent", "export", "helper").stdout.replace("helper", "copy"))
    assert flux("agent", "apply", "copy.yaml").stdout == "Applied agent copy (version 1).\n"
    assert flux("agent", "delete", "helper").returncode == 0
    assert [row["name"] for row in json.loads(flux("agent", "list", "--format", "json").stdout)] == ["copy"]


@pytest.mark.behaviour("cli:errors:one-line")
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["agnt"], 2, ["agnt", "did you mean 'agent'"]),
        (["agent", "show", "nobody"], 1, ["nobody", "flux agent list"]),
        (["agent", "create", "x"], 2, ["--system-prompt"]),
        (["agent", "create", "x", "--model", "gpt", "--system-prompt", "y"], 2, ["gpt", "provider/model"]),
        (["agent", "create", "x", "--model", "opnai/gpt", "--system-prompt", "y"], 2, ["opnai", "openai"]),
        (["agent", "create", "x", "--model", "scripted/demo", "--system-prompt", "y", "--tools", "shel"], 2, ["shell"]),
        (["agent", "session", "show", "nowhere"], 1, ["nowhere", "flux agent session list"]),
        (["agent", "session", "resume", "nowhere"], 1, ["nowhere"]),
        (["agent", "stop", "nowhere"], 1, ["nowhere"]),
        (["chat", "missing.yaml"], 2, ["missing.yaml"]),
        (["start", "server", "--host", "0.0.0.0"], 2, ["--allow-remote"]),
        (["start", "worker"], 2, ["needs Postgres", "FLUX_DATABASE_URL"]),
        (["agent", "list", "--server", "http://127.0.0.1:9"], 1, ["http://127.0.0.1:9", "flux start server"]),
    ],
)
def test_a_mistake_is_one_line_with_the_remedy(flux: Flux, arguments: list[str], code: int, words: list[str]) -> None:
    complains(flux(*arguments), code, *words)


@pytest.mark.behaviour("cli:errors:one-line")
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["agnt"], "unknown command 'agnt'; did you mean 'agent'? See `flux --help`"),
        (["agent", "lst"], "no such command 'lst'; did you mean 'list'? See `flux agent --help`"),
        (["chat", "--modle", "x"], "no such option '--modle'; did you mean '--model'? See `flux chat --help`"),
        (
            ["agent", "create", "--system-prom", "x"],
            "no such option '--system-prom';"
            " did you mean one of: '--system-prompt', '--system-prompt-file'? See `flux agent create --help`",
        ),
        (["chat", "-x"], "no such option '-x'; see `flux chat --help`"),
        (["agent", "show"], "missing argument 'NAME'; see `flux agent show --help`"),
        (
            ["agent", "list", "--limit", "abc"],
            "invalid value for '--limit': 'abc' is not a valid whole number; see `flux agent list --help`",
        ),
        (["agent", "list", "--limit"], "option '--limit' requires an argument"),
    ],
)
def test_what_is_mistyped_reads_well(flux: Flux, arguments: list[str], line: str) -> None:
    done = flux(*arguments)
    shown = done.stderr.replace("`python -m flux", "`flux")
    assert (done.returncode, done.stdout, shown) == (2, "", f"Error: {line}\n")


@pytest.mark.behaviour("cli:errors:yaml-key")
def test_an_unknown_yaml_key_is_named_with_the_nearest(flux: Flux, tmp_path: Path) -> None:
    (tmp_path / "agent.yaml").write_text("name: a\nmodel: scripted/demo\nsystem_promt: x\nsystem_prompt: y\n")
    complains(flux("agent", "apply", "agent.yaml"), 2, "system_promt", "did you mean 'system_prompt'?", "agent.yaml")


@pytest.mark.behaviour("cli:errors:missing-key")
def test_a_missing_provider_key_names_the_variable(flux: Flux) -> None:
    created = create(flux, model="anthropic/claude-sonnet-5-5")
    assert (created.returncode, "ANTHROPIC_API_KEY" in created.stderr) == (0, True)
    complains(flux("chat", "helper", given="hi"), 1, "ANTHROPIC_API_KEY")


@pytest.mark.behaviour("cli:errors:provider-down")
def test_a_provider_that_is_down_fails_the_run_and_keeps_the_session(flux: Flux, tmp_path: Path) -> None:
    with closing(socket.socket()) as nobody:
        nobody.bind(("127.0.0.1", 0))
        (tmp_path / "flux.toml").write_text(
            f'[flux]\nmodel_attempts = 1\n[flux.ai.providers.down]\nbase_url = "http://127.0.0.1:{nobody.getsockname()[1]}"\n'
        )
        complains(flux("agent", "list"), 2, "providers", "flux trust")
        flux("trust")
        create(flux, model="down/any")
        done = flux("chat", "helper", given="hi")
    assert done.returncode == 1
    assert "127.0.0.1" in done.stderr
    (row,) = json.loads(flux("agent", "session", "list", "--format", "json").stdout)
    assert (row["state"], bool(row["last_error"])) == ("idle", True)


@pytest.mark.behaviour("cli:server:port-in-use")
def test_a_port_in_use_is_said(flux: Flux) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = str(taken.getsockname()[1])
        complains(flux("start", "server", "--port", port), 1, port, "--port")


@pytest.mark.behaviour("cli:database:newer")
def test_a_newer_database_is_refused_and_left_alone(flux: Flux, tmp_path: Path) -> None:
    create(flux)
    file = tmp_path / "home" / "flux.db"
    with closing(sqlite3.connect(file)) as database:
        database.execute("update alembic_version set version_num = '9999'")
        database.commit()
    complains(flux("agent", "list"), 1, "9999", "upgrade Flux")
    with closing(sqlite3.connect(file)) as database:
        assert database.execute("select version_num from alembic_version").fetchone() == ("9999",)


@pytest.mark.behaviour("cli:database:not-a-database")
def test_a_file_that_is_no_database_is_said(flux: Flux, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "flux.db").write_text("not a database, " * 100)
    complains(flux("agent", "list"), 1, "flux.db")


@pytest.mark.behaviour("cli:settings:unknown")
def test_an_unknown_setting_is_named(flux: Flux, tmp_path: Path) -> None:
    (tmp_path / "flux.toml").write_text("[flux]\nserver_prt = 1\n")
    complains(flux("agent", "list"), 2, "server_prt", "server_port")


@pytest.mark.behaviour("cli:chat:pipe")
def test_a_pipe_gets_the_plain_answer(flux: Flux) -> None:
    done = flux("chat", given="hello")
    assert done.returncode == 0
    assert done.stdout.startswith("Hello! I am **scripted/demo**")
    assert "\x1b" not in done.stdout


@pytest.mark.behaviour("cli:chat:too-long")
def test_a_message_of_two_megabytes_is_refused_and_the_session_stays(flux: Flux) -> None:
    create(flux)
    done = flux("chat", "helper", given="x" * 2_000_000)
    assert done.returncode == 1
    assert "1,000,000" in done.stderr
    (row,) = json.loads(flux("agent", "session", "list", "--format", "json").stdout)
    assert flux("chat", "--session", row["id"], given="hello").returncode == 0


@pytest.mark.behaviour("cli:sessions:ended")
def test_a_stopped_session_takes_no_more_messages(flux: Flux) -> None:
    create(flux)
    flux("chat", "helper", given="hello")
    (row,) = json.loads(flux("agent", "session", "list", "--format", "json").stdout)
    assert flux("agent", "stop", row["id"]).returncode == 0
    done = flux("chat", "--session", row["id"], given="hello")
    assert done.returncode == 1
    assert "ended" in done.stderr


@pytest.mark.behaviour("cli:tools:binary-output")
def test_binary_output_of_a_tool_breaks_nothing(flux: Flux, tmp_path: Path) -> None:
    (tmp_path / "agent.yaml").write_text(
        "name: helper\nmodel: scripted/demo\nsystem_prompt: x\ntools: [shell]\ntool_approvals: {shell: false}\n"
    )
    flux("agent", "apply", "agent.yaml")
    done = flux("chat", "helper", given="run head -c 300 /dev/urandom; printf '\\033[2J\\000end'")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.behaviour("cli:server:found", "cli:doctor:sandbox")
def test_commands_find_the_live_server_of_their_home_and_survive_its_death(flux: Flux, tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        create(flux)
        address = json.loads((tmp_path / "home" / "server.json").read_text())["url"]
        doctor = {row["what"]: row["found"] for row in json.loads(flux("doctor", "--format", "json").stdout)}
        assert doctor["server"] == address
        assert doctor["sandbox"] == "local, by setting; shell, write_file and edit_file ask first"
        server.send_signal(signal.SIGKILL)
        server.wait()
    listed: list[dict[str, Any]] = json.loads(flux("agent", "list", "--format", "json").stdout)
    assert [row["name"] for row in listed] == ["helper"]


@pytest.mark.behaviour("cli:home:two-processes")
def test_two_processes_work_on_one_home(flux: Flux, tmp_path: Path) -> None:
    create(flux)
    command = [sys.executable, "-m", "flux", "chat", "helper"]
    both = [
        subprocess.Popen(
            command, cwd=tmp_path, env=environment(tmp_path), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    answers = [process.communicate("hello", timeout=50)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert all("scripted/demo" in answer for answer in answers)
    rows = json.loads(flux("agent", "session", "list", "--format", "json").stdout)
    assert [(row["state"], row["turns"]) for row in rows] == [("idle", 1), ("idle", 1)]


@pytest.mark.behaviour("cli:server:sigterm")
def test_a_server_leaves_in_good_order_on_sigterm(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.terminate()
        assert server.wait(timeout=30) == 0
        assert server.stderr is not None
        assert server.stderr.read() == ""
    assert not (tmp_path / "home" / "server.json").exists()


@pytest.mark.behaviour("sessions:workspace:kept")
def test_a_session_works_where_it_was_started_whoever_runs_it(flux: Flux, tmp_path: Path) -> None:
    create(flux)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with serving(elsewhere):
        done = flux("chat", "helper", "-p", "list")
        assert "elsewhere/" in done.stdout
    (row,) = json.loads(flux("agent", "session", "list", "--format", "json").stdout)
    resumed = subprocess.run(
        [sys.executable, "-m", "flux", "chat", "--session", row["id"], "-p", "list"],
        cwd=elsewhere, env=environment(tmp_path), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=50,
        check=False,
    )  # fmt: skip
    assert "elsewhere/" in resumed.stdout


@pytest.mark.behaviour("cli:sessions:found")
def test_a_session_is_found_by_the_beginning_of_its_id_or_as_the_latest(flux: Flux) -> None:
    assert "no session yet" in flux("agent", "session", "resume").stderr
    flux("chat", "-p", "first")
    flux("chat", "-p", "second")
    second, first = json.loads(flux("agent", "session", "list", "--format", "json").stdout)
    assert "first" in flux("agent", "session", "show", first["id"][:13]).stdout
    assert flux("chat", "-c", "-p", "third").returncode == 0
    shown = flux("agent", "session", "show", second["id"]).stdout
    assert "> second" in shown
    assert "> third" in shown


@pytest.mark.behaviour("cli:chat:one-message")
def test_one_message_is_sent_with_what_was_piped_behind_it(flux: Flux) -> None:
    done = flux("chat", "--model", "scripted/echo", "-p", "review this", given="a diff")
    assert (done.returncode, done.stdout.split()) == (0, ["review", "this", "a", "diff"])


@pytest.mark.behaviour("cli:chat:own-agent-kept")
def test_an_agent_of_ones_own_named_like_the_bundled_one_is_kept(flux: Flux) -> None:
    create(flux, name="flux", model="scripted/echo")
    assert flux("chat", "-p", "hello there").stdout.strip() == "hello there"
    assert json.loads(flux("agent", "show", "flux", "--format", "json").stdout)["version"] == 1
