"""A provider on loopback that answers from fixtures, in the wire formats of all providers (npm aimock)."""

import json
import subprocess
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

KEY = "test-key-of-nobody"


def environment(url: str) -> dict[str, str]:
    """Keys and addresses that send every built-in provider to `url`."""
    keys = ["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GOOGLE_API_KEY", "OLLAMA_API_KEY", "OPENROUTER_API_KEY"]
    return {
        **dict.fromkeys(keys, KEY),
        "OPENAI_BASE_URL": f"{url}/v1",
        "ANTHROPIC_BASE_URL": url,
        "GOOGLE_GEMINI_BASE_URL": url,
        "OPENROUTER_BASE_URL": f"{url}/api/v1",
        "OLLAMA_HOST": url,
    }


class Aimock:
    """A running aimock: `url` is where it listens, `environment` sends every provider there."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.environment = environment(url)

    def journal(self) -> list[Any]:
        """The requests so far, oldest first; each has `path` and `body`."""
        with urllib.request.urlopen(f"{self.url}/__aimock/journal") as answer:
            found = json.load(answer)
        return list(found if isinstance(found, list) else found["entries"])


@contextmanager
def aimock(program: str, fixtures: Iterable[Mapping[str, Any]], directory: Path) -> Iterator[Aimock]:
    """Run `program` (llmock) on a free port with these fixtures until the context ends.

    A fixture reads {"match": {"userMessage": "hello"}, "response": {"content": "Hi"}}; a response may also
    hold toolCalls [{name, arguments}], reasoning, usage, finishReason, or error with status and retryAfter.
    """
    file = directory / "aimock.json"
    file.write_text(json.dumps({"fixtures": list(fixtures)}))
    command = [program, "--port", "0", "--host", "127.0.0.1", "--fixtures", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield Aimock(_address(process))
        finally:
            process.terminate()


def _address(process: subprocess.Popen[str]) -> str:
    said = ""
    assert process.stdout is not None
    for line in process.stdout:
        said += line
        if "listening on " in line:
            return line.split("listening on ")[1].strip()
    raise RuntimeError(f"aimock did not start: {said}")
