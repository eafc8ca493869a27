"""`flux agent start NAME --mode api` as real processes: over sockets, side by side, killed and restarted."""

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import httpx_sse
import pytest

from tests.acceptance.test_cli import Flux, complains, environment, flux

__all__ = ["flux"]

ROOT = Path(__file__).parents[2]
TOKEN = {"Authorization": "Bearer mine"}
WORDS = [f"word{n} " for n in range(60)]
HELD_AT = 20
Frame = dict[str, Any]


class Provider(ThreadingHTTPServer):
    """Speaks the wire format of OpenAI. The first answer stops in the middle until its reader is gone."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Completions)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.calls = 0


class Completions(BaseHTTPRequestHandler):
    server: Provider

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.calls += 1
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for word in WORDS[: HELD_AT if self.server.calls == 1 else None]:
            self._send({"content": word}, None)
        if self.server.calls == 1:
            self.connection.recv(1)  # nothing comes but the end
            return
        self._send({}, "stop")
        self.wfile.write(b"data: [DONE]\n\n")

    def _send(self, delta: dict[str, str], finish: str | None) -> None:
        chunk = {
            "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "model",
            "choices": [{"index": 0, "delta": {"role": "assistant", **delta}, "finish_reason": finish}],
        }  # fmt: skip
        self.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def slow_provider() -> Iterator[Provider]:
    with Provider() as provider:
        thread = Thread(target=provider.serve_forever)
        thread.start()
        yield provider
        provider.shutdown()
        thread.join()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def running(folder: Path, *arguments: str, line: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A command that serves: the address it says, and its process."""
    with subprocess.Popen(
        [sys.executable, "-m", "flux", *arguments],
        cwd=folder, env=environment(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert process.stderr is not None
            assert line in said, said or process.stderr.read()
            found = re.search(r"http://[^ ]+", said)
            assert found is not None
            yield found[0], process
        finally:
            process.terminate()


@contextmanager
def server(folder: Path, port: int = 0) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    with running(folder, "start", "server", "--port", str(port), line="Flux server on") as found:
        yield found


@contextmanager
def api(folder: Path, agent: str, *more: str) -> Iterator[str]:
    arguments = ("agent", "start", agent, "--mode", "api", "--port", "0", *more)
    with running(folder, *arguments, line=f"Flux Agent — {agent} (api) on") as (url, _):
        yield url


def frames(url: str, path: str, body: Any, **headers: str) -> Iterator[Frame]:
    with (
        httpx.Client(timeout=30, trust_env=False) as http,
        httpx_sse.connect_sse(http, "POST", url + path, json=body, headers=TOKEN | headers) as source,
    ):
        if source.response.status_code != 200:
            raise AssertionError(source.response.read())
        for event in source.iter_sse():
            yield json.loads(event.data)


def create(flux: Flux, name: str = "helper", model: str = "scripted/demo") -> None:
    done = flux("agent", "create", name, "--model", model, "--system-prompt", "Help.", "--tools", "shell")
    assert done.returncode == 0, done.stderr


@pytest.mark.behaviour("api:several:processes")
def test_two_processes_side_by_side_serve_one_conversation(flux: Flux, tmp_path: Path) -> None:
    create(flux)
    with server(tmp_path) as (upstream, _), api(tmp_path, "helper") as one, api(tmp_path, "helper") as two:
        asked = list(frames(one, "/chat", {"message": "run echo hello"}))
        id, question = asked[0]["id"], asked[-1]
        assert question["type"] == "approval_required"
        told = list(frames(two, f"/approval/{question['id']}?session={id}", {"approved": True}))
        assert [frame["outcome"] for frame in told if frame["type"] == "tool_done"] == ["success"]
        assert told[-1]["type"] == "response"
        for turn, way in enumerate((one, two, one), 2):
            last = list(frames(way, f"/chat?session={id}", {"message": "hello"}))[-1]
            assert (last["type"], last["turn"]) == ("response", turn)
        shown = httpx.get(f"{two}/session/{id}", headers=TOKEN).json()
        assert shown == httpx.get(f"{upstream}/executions/{id}").json()


@pytest.mark.behaviour("api:chat:server-restart")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_that_restarts_in_the_middle_of_an_answer_costs_no_word(
    flux: Flux, tmp_path: Path, number: signal.Signals
) -> None:
    with ExitStack() as stack:
        provider = stack.enter_context(slow_provider())
        (tmp_path / "flux.toml").write_text(f'[flux.ai.providers.slow]\nbase_url = "{provider.url}/v1"\n')
        assert flux("trust").returncode == 0
        create(flux, model="slow/model")
        port = free_port()
        url, process = stack.enter_context(server(tmp_path, port))
        agent = stack.enter_context(api(tmp_path, "helper", "--server", url))
        stream = frames(agent, "/chat", {"message": "talk"})
        received: list[Frame] = []
        while [frame["type"] for frame in received].count("token") < HELD_AT:
            received.append(next(stream))
        process.send_signal(number)
        process.wait(15)
        stack.enter_context(server(tmp_path, port))
        received += stream
    assert received[-1]["content"] == "".join(WORDS)
    attempt = max(frame["attempt"] for frame in received if frame["type"] == "token")
    told = [frame["text"] for frame in received if frame["type"] == "token" and frame["attempt"] == attempt]
    assert "".join(told) == "".join(WORDS)
    assert [frame["type"] for frame in received].count("session_id") == 1
    assert provider.calls == 2


@pytest.mark.behaviour("api:start:embedded")
def test_without_a_server_the_process_runs_the_agent_itself_and_says_so(flux: Flux, tmp_path: Path) -> None:
    create(flux)
    arguments = ("agent", "start", "helper", "--mode", "api", "--port", "0")
    with running(tmp_path, *arguments, line="this process runs the agent") as (url, process):
        assert httpx.get(f"{url}/health").json() == {"status": "ok"}
        assert httpx.post(f"{url}/chat", json={"message": "hi"}).status_code == 401
        told = list(frames(url, "/chat", {"message": "hello"}))
        assert told[-1]["content"] == "".join(frame["text"] for frame in told if frame["type"] == "token")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


@pytest.mark.behaviour("api:start:refused")
def test_what_keeps_it_from_starting_is_one_line(flux: Flux, tmp_path: Path) -> None:
    create(flux)
    start = ("agent", "start", "helper", "--mode", "api")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        complains(flux(*start, "--port", port), 1, f"port {port}", "in use", "--port")
    complains(flux(*start, "--host", "0.0.0.0"), 2, "--allow-remote", "reverse proxy")
    complains(flux(*start, "--session", "x"), 2, "--session", "?session=ID")
    complains(flux(*start, "--model", "gpt"), 2, "--model", "provider/model")
    complains(flux("agent", "start", "nobody", "--mode", "api", "--port", "0"), 1, "nobody", "flux agent list")
    complains(flux(*start, "--port", "99999"), 2, "--port")


@pytest.mark.behaviour("api:start:remote")
def test_an_address_for_others_is_warned_about(flux: Flux, tmp_path: Path) -> None:
    create(flux)
    arguments = ("agent", "start", "helper", "--mode", "api", "--port", "0", "--host", "0.0.0.0", "--allow-remote")
    with running(tmp_path, *arguments, line="http://0.0.0.0:") as (url, process):
        port = url.rpartition(":")[2]
        there = httpx.get(f"http://127.0.0.1:{port}/health", headers={"Host": "agents.example"})
        assert there.json() == {"status": "ok"}
        process.terminate()
        process.wait(10)
        assert process.stderr is not None
        (warning,) = process.stderr.read().splitlines()
    assert warning.startswith("Warning: ")
    assert "reverse proxy" in warning


@pytest.mark.behaviour("api:start:server-away")
def test_it_starts_before_its_server_and_says_so(flux: Flux, tmp_path: Path) -> None:
    create(flux)
    port = free_port()
    with api(tmp_path, "helper", "--server", f"http://127.0.0.1:{port}") as url:
        away = httpx.post(f"{url}/chat", json={"message": "hello"}, headers=TOKEN, timeout=20)
        assert (away.status_code, away.json()["error"]["type"]) == (503, "server_unreachable")
        with server(tmp_path, port):
            assert list(frames(url, "/chat", {"message": "hello"}))[-1]["type"] == "response"
