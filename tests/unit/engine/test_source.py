"""A stored source becomes a live module, whatever it does when it is loaded."""

import asyncio
import sys
import threading
import traceback
from typing import Any

import pytest

from flux.engine.sources.source import SourceLoader, module_name
from flux.errors import SourceUnusable
from flux.store.workflows import WorkflowVersion

HELLO = """\
from dataclasses import dataclass
from flux import workflow

@dataclass
class Order:
    id: int

@workflow
async def hello(ctx):
    raise KeyError(Order(1))

@workflow.with_options(namespace="billing", name="Pay")
async def pay(ctx):
    return "paid"

if __name__ == "__main__":
    hello.run()
"""


def stored(source: str, digest: str, namespace: str = "default", name: str = "hello") -> WorkflowVersion:
    return WorkflowVersion(namespace, name, 3, digest, source, "{}", "ann", 0.0)


async def refusal(loader: SourceLoader, found: WorkflowVersion) -> str:
    with pytest.raises(SourceUnusable) as caught:
        await loader.workflow(found)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix("the source of default/hello version 3 cannot be used: ")


@pytest.mark.behaviour("workflows:load:live")
async def test_a_workflow_is_found_in_its_source_and_its_traces_show_the_lines() -> None:
    loader = SourceLoader()
    live: Any = await loader.workflow(stored(HELLO, "d1"))
    other: Any = await loader.workflow(stored(HELLO, "d1", "billing", "Pay"))
    assert await other(None) == "paid"
    assert live.function.__module__ == module_name("d1")
    assert sys.modules[module_name("d1")].hello is live
    with pytest.raises(KeyError) as caught:
        await live(None)
    trace = "".join(traceback.format_exception(caught.value))
    assert "raise KeyError(Order(1))" in trace
    assert 'File "<workflow default/hello version 3, d1>", line 10' in trace


@pytest.mark.behaviour("workflows:load:once")
async def test_a_source_is_loaded_once_and_the_oldest_is_forgotten() -> None:
    loader = SourceLoader(kept=2)
    first, again = await asyncio.gather(*(loader.workflow(stored(HELLO, "d2")) for _ in range(2)))
    assert first is again
    for digest in ("d3", "d4"):
        await loader.workflow(stored(HELLO, digest))
    assert [module_name(digest) in sys.modules for digest in ("d2", "d3", "d4")] == [False, True, True]
    assert await loader.workflow(stored(HELLO, "d2")) is not first


@pytest.mark.behaviour("workflows:load:unusable")
@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import nowhere_to_be_found", "it imports 'nowhere_to_be_found', which is not installed on this worker"),
        ("x = 1\n1 / 0", "it fails when it is loaded: line 2: ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "it fails when it is loaded: line 1: SystemExit: 3"),
        ("raise KeyboardInterrupt", "it fails when it is loaded: line 1: KeyboardInterrupt"),
        ("raise ValueError('two\\nlines')", "it fails when it is loaded: line 1: ValueError: two lines"),
        ("hello = 1", "when it is loaded, it has no such workflow at its top level"),
        ("def x(:", "it fails when it is loaded: SyntaxError: invalid syntax"),
    ],
)
async def test_a_source_that_cannot_be_loaded_says_why(source: str, reason: str) -> None:
    said = await refusal(SourceLoader(), stored(source, "broken"))
    assert said.startswith(reason)
    if "hello" not in source:
        assert module_name("broken") not in sys.modules


@pytest.mark.behaviour("workflows:load:hangs")
async def test_a_source_that_hangs_stops_nobody_and_is_begun_once(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    monkeypatch.setattr(sys, "flux_test_gate", gate, raising=False)
    found = stored("import sys\nsys.flux_test_gate.wait()\n" + HELLO, "hangs")
    loader = SourceLoader(seconds=0.01)
    for _ in range(2):
        assert await refusal(loader, found) == "it did not load within 0.01 seconds"
    assert [thread.name for thread in threading.enumerate()].count(module_name("hangs")) == 1
    gate.set()
    patient = SourceLoader()
    assert (await patient.workflow(found)) is not None
