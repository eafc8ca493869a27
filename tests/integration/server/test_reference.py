"""docs/reference/http.md says what is so."""

import asyncio
import re
from pathlib import Path

import pytest

from flux.deltas import DELTA_TYPES
from flux.errors import error_tree
from flux.events import ENTRY_TYPES
from tests.integration.server.serving import Served

PAGE = (Path(__file__).parents[3] / "docs/reference/http.md").read_text()


@pytest.mark.docs
@pytest.mark.behaviour("server:reference:true")
async def test_every_curl_snippet_works(on_socket: Served, require_tool: object) -> None:
    assert callable(require_tool)
    require_tool("curl")
    script = "set -eu -o pipefail\n" + "\n".join(re.findall(r"^```sh\n(.*?)^```", PAGE, re.M | re.S))
    shell = await asyncio.create_subprocess_exec(
        "bash", "-c", script.replace("http://127.0.0.1:8000", on_socket.url),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await shell.communicate()
    assert shell.returncode == 0, output.decode()
    assert "event: chat_response" in output.decode()


@pytest.mark.docs
@pytest.mark.behaviour("server:reference:true")
async def test_every_route_is_on_the_page(on_socket: Served) -> None:
    document = (await on_socket.http.get("/openapi.json")).json()
    routes = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    assert routes == set(re.findall(r"`((?:GET|POST|PUT|DELETE) /[^`]*)`", PAGE.partition("## Errors")[0])) - {""}


@pytest.mark.docs
@pytest.mark.behaviour("server:reference:true")
def test_every_event_is_on_the_page_and_every_error_there_exists() -> None:
    events = PAGE.partition("## Events")[2]
    assert [name for name in [*ENTRY_TYPES, *DELTA_TYPES] if f"`{name}`" not in events] == []
    errors = PAGE.partition("## Errors")[2].partition("## Events")[0]
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)*)`", errors)) - {"max_message_bytes"}
    assert named - set(error_tree()) == set()
