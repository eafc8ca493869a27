"""What the documents show is true: their commands, definitions, settings and programs are run."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from flux.agents.define.yaml import define_from
from flux.settings import load_settings
from flux.trust import trust

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: What examples say to "hello" without a key, that do not talk with `scripted/demo`.
SAYS = {
    "custom_workflow.yaml": "You said: hello",
    "mcp.yaml": "Tomorrow it will be sunny in Bern",
    "delegation.yaml": "Write one sentence about durable agents.",
}
DEFAULT_ADDRESS = re.compile(r"(localhost|127\.0\.0\.1):8000")

#: Where `flux dev` listens, and on this machine perhaps somebody else.
DEV_PORT = "2024"

pytestmark = pytest.mark.docs


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Server(NamedTuple):
    address: str
    environment: dict[str, str]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("docs")
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "FLUX_HOME": str(folder / "home"),
        "LANG": "C.UTF-8",
    }
    command = [sys.executable, "-m", "flux", "start", "server", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        url = json.loads((folder / "home" / "server.json").read_text())["url"]
        apply = [sys.executable, "-m", "flux", "agent", "apply", "examples/agents/assistant.yaml"]
        subprocess.run(apply, cwd=ROOT, env=environment, check=True, capture_output=True)
        yield Server(url.removeprefix("http://"), environment)
        process.terminate()


def blocks(language: str) -> list[object]:
    """The blocks of a language with their page; those of one page in one piece for `sh`."""
    found: list[object] = []
    for page in PAGES:
        texts = [text for name, text in BLOCK.findall(page.read_text()) if name == language]
        name = str(page.relative_to(ROOT))
        if language == "sh" and texts:
            texts = ["".join(texts)]
        found += [pytest.param(text, id=f"{name}-{index}") for index, text in enumerate(texts, 1)]
    return found


@pytest.mark.behaviour("docs:snippets:run")
@pytest.mark.parametrize("script", blocks("sh"))
def test_commands_run(script: str, server: Server) -> None:
    script = DEFAULT_ADDRESS.sub(server.address, script).replace(DEV_PORT, str(free_port()))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT, env=server.environment, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '"error":' not in done.stdout


@pytest.mark.parametrize("program", blocks("python"))
def test_programs_run(program: str, server: Server) -> None:
    program = DEFAULT_ADDRESS.sub(server.address, program)
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT, env=server.environment, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("text", blocks("yaml"))
def test_definitions_are_valid(text: str, tmp_path: Path) -> None:
    whole = text if "model:" in text else f"model: scripted/demo\n{text}"
    whole = whole if "system_prompt:" in whole else f"system_prompt: x\n{whole}"
    whole = whole if "name:" in whole else f"name: sample\n{whole}"
    file = tmp_path / "agent.yaml"
    file.write_text(whole)
    define_from(file, {})


@pytest.mark.parametrize("text", blocks("toml"))
def test_settings_are_valid(text: str, tmp_path: Path) -> None:
    (tmp_path / "flux.toml").write_text(text)
    trust({"HOME": str(tmp_path)}, tmp_path / "flux.toml")
    load_settings({"HOME": str(tmp_path)}, cwd=tmp_path)


@pytest.mark.behaviour("examples:run:offline")
@pytest.mark.parametrize("example", sorted(ROOT.glob("examples/agents/*.yaml")), ids=lambda path: path.name)
def test_examples_answer_offline(example: Path, server: Server) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flux", "chat", str(example)],
        cwd=ROOT, env=server.environment, input="hello", capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert SAYS.get(example.name, "scripted/demo") in done.stdout
