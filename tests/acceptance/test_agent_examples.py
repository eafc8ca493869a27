"""The example agents do what they show, with the scripted model."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jsonschema_rs
import pytest
import yaml

from tests.acceptance.test_cli import environment

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "agents"

pytestmark = pytest.mark.behaviour("examples:agents:show")


def chat(folder: Path, example: str, said: str, code: int = 0) -> str:
    """What an example answers."""
    done = subprocess.run(
        [sys.executable, "-m", "flux", "chat", str(EXAMPLES / example), "-p", said],
        cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ('call order_status {"order": "A-17"}', "on its way"),
        (
            'call shipping_cost {"parcels": [{"weight_kg": 2}, {"weight_kg": 1, "service": "express"}]}',
            '{"total":20.4}',
        ),
        ('call refund {"order": "B-4", "amount": 5}', "5.00 EUR for B-4 paid back"),
    ],
)
def test_custom_tools(tmp_path: Path, said: str, answer: str) -> None:
    assert answer in chat(tmp_path, "custom_tools.yaml", said)


def test_custom_tools_ask_for_a_large_refund(tmp_path: Path) -> None:
    shown = chat(tmp_path, "custom_tools.yaml", 'call refund {"order": "B-4", "amount": 50}', code=1)
    assert "flux agent session resume" in shown
    assert "paid back" not in shown


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("use compare-sources", "skill://compare-sources/template.md"),
        ("read skill://compare-sources/template.md", "| source | says |"),
        ('call store_memory {"key": "tea", "value": "green"}', "tea"),
        ('call web_fetch {"url": "http://127.0.0.1/"}', "not a public address"),
    ],
)
def test_researcher(tmp_path: Path, said: str, answer: str) -> None:
    assert answer in chat(tmp_path, "researcher.yaml", said)


@pytest.mark.parametrize("example", sorted(path.name for path in EXAMPLES.glob("*.yaml")))
def test_a_real_model_takes_one_variable(tmp_path: Path, example: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flux", "agent", "apply", str(EXAMPLES / example), "--format", "json"],
        cwd=tmp_path, env=environment(tmp_path) | {"FLUX_MODEL": "anthropic/claude-sonnet-5-5"},
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '"anthropic/claude-sonnet-5-5"' in done.stdout
    assert os.environ.get("FLUX_MODEL") is None


def test_the_schema_for_editors_takes_every_example(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flux", "schema", "agent"],
        env=environment(tmp_path), capture_output=True, text=True, timeout=50, check=True,
    )  # fmt: skip
    judge = jsonschema_rs.validator_for(json.loads(done.stdout))
    wrong = {
        path.name: [error.message for error in judge.iter_errors(yaml.safe_load(path.read_text()))]
        for path in EXAMPLES.glob("*.yaml")
    }
    assert not any(wrong.values()), wrong
    assert not judge.is_valid({"name": "a", "model": "b/c", "tols": []})


def test_api_client(tmp_path: Path) -> None:
    env = environment(tmp_path)
    command = [sys.executable, "-m", "flux", "start", "server", "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            server.stdout.readline()
            url: str = json.loads((tmp_path / "home" / "server.json").read_text())["url"]
            apply = [sys.executable, "-m", "flux", "agent", "apply", str(EXAMPLES / "coder.yaml"), "--server", url]
            subprocess.run(apply, cwd=tmp_path, env=env, check=True, capture_output=True)
            done = subprocess.run(
                [sys.executable, str(EXAMPLES / "api_client.py"), "coder", "run echo hello"],
                cwd=tmp_path, env=env | {"FLUX_SERVER": url}, capture_output=True, text=True, timeout=50, check=False,
            )  # fmt: skip
        finally:
            server.terminate()
    assert done.returncode == 0, done.stderr
    assert "[approve shell {'command': 'echo hello'}]" in done.stdout
    assert "[shell: success]" in done.stdout
    assert "stdout:\nhello" in done.stdout


@pytest.mark.behaviour("examples:agents:curl")
def test_curl(tmp_path: Path, require_tool: Callable[[str], str]) -> None:
    require_tool("curl")
    env = environment(tmp_path)
    apply = [sys.executable, "-m", "flux", "agent", "apply", str(EXAMPLES / "coder.yaml")]
    subprocess.run(apply, cwd=tmp_path, env=env, check=True, capture_output=True)
    command = [sys.executable, "-m", "flux", "agent", "start", "coder", "--mode", "api", "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://[^ ]+", process.stdout.readline())
            assert found is not None
            done = subprocess.run(
                ["sh", str(EXAMPLES / "curl.sh"), "run echo hello", "hello"], capture_output=True, text=True,
                cwd=tmp_path, env=env | {"FLUX_API": found[0], "FLUX_AUTH_TOKEN": "any"}, timeout=50, check=False,
            )  # fmt: skip
        finally:
            process.terminate()
    assert done.returncode == 0, done.stderr
    assert '"type":"tool_done"' in done.stdout
    assert '"outcome":"success"' in done.stdout
    assert [line for line in done.stdout.splitlines() if '"type":"response"' in line][-1].endswith('"turn":2}')
