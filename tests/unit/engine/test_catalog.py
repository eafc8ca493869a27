"""What a file of workflows declares is read from its syntax, and never run."""

import json
import textwrap
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux.engine.schedules import Cron, Interval, Once, decode_spec
from flux.engine.sources.catalog import MAX_SOURCE_BYTES, read_source
from flux.errors import SourceInvalid, TooLarge

HELLO = "from flux import workflow\n\n@workflow\nasync def hello(ctx):\n    return 1\n"


def read(text: str) -> dict[str, dict[str, Any]]:
    """The options of each workflow of a text, by its full name."""
    source = read_source(textwrap.dedent(text).encode())
    return {f"{one.namespace}/{one.name}": json.loads(one.options) for one in source.workflows}


def option(option: str) -> Any:
    """How one option of a workflow is read."""
    text = f"""\
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo
import datetime as dt
from flux import ResourceRequest, cron, interval, once, workflow
@workflow.with_options({option})
async def one(ctx): ...
"""
    return next(iter(read(text).values()))


def refusal(text: str) -> str:
    with pytest.raises(SourceInvalid) as caught:
        read(text)
    return str(caught.value)


@pytest.mark.behaviour("workflows:parse:found")
@pytest.mark.parametrize(
    ("imported", "decorator"),
    [
        ("from flux import workflow", "workflow"),
        ("from flux import workflow as wf", "wf"),
        ("from flux import *", "workflow"),
        ("import flux", "flux.workflow"),
        ("import flux as f", "f.workflow.with_options()"),
        ("from flux import workflow", "workflow.with_options(name='hello')"),
        ("import flux.engine.workflows.workflow", "flux.engine.workflows.workflow.workflow"),
        ("from flux.engine.workflows.workflow import workflow", "workflow"),
        ("try:\n    from flux import workflow\nexcept ImportError:\n    raise", "workflow"),
    ],
)
def test_a_workflow_is_found_whatever_its_decorator_is_called(imported: str, decorator: str) -> None:
    assert list(read(f"{imported}\n@{decorator}\nasync def hello(ctx): ...\n")) == ["default/hello"]


@pytest.mark.behaviour("workflows:parse:found")
def test_only_decorated_functions_at_the_top_level_are_workflows_and_nothing_is_run() -> None:
    text = """
        import os.path, numpy as np
        from flux import task, workflow
        from other import workflow as theirs
        raise SystemExit("this is not run")
        @task
        async def step(): ...
        @theirs
        async def not_ours(ctx): ...
        def outer():
            @workflow
            async def inner(ctx): ...
        @workflow
        async def _first(ctx):
            \"\"\"Say hello.\"\"\"
        @workflow.with_options(namespace="billing", name="Second")
        async def other(ctx): ...
    """
    found = read(text)
    assert list(found) == ["billing/Second", "default/first"]
    assert found["default/first"]["description"] == "Say hello."
    assert found["default/first"]["imports"] == ["flux", "numpy", "os", "other"]


@pytest.mark.behaviour("workflows:parse:options")
def test_options_are_read() -> None:
    assert option("affinity={'gpu': 'a100'}")["affinity"] == {"gpu": "a100"}
    assert option("secret_requests=['KEY', 'OTHER']")["secret_requests"] == ["KEY", "OTHER"]
    assert option("requests=ResourceRequest(cpu=2, memory='4Gi', packages=['x'], gpu=None)")["requests"] == {
        "cpu": 2, "memory": "4Gi", "packages": ["x"],
    }  # fmt: skip
    assert option("schedule=None, requests=None, affinity=None, output_storage=anything()") == {
        "imports": ["datetime", "flux", "zoneinfo"]
    }


@pytest.mark.behaviour("workflows:parse:schedules")
@pytest.mark.parametrize(
    ("written", "spec"),
    [
        ("cron('0 9 * * MON-FRI', timezone='Europe/Paris')", Cron("0 9 * * MON-FRI", "Europe/Paris")),
        ("cron('0 9 * * *')", Cron("0 9 * * *")),
        ("interval(hours=6)", Interval(21600.0)),
        ("interval(days=1, minutes=1.5)", Interval(86490.0)),
        ("once(datetime(2030, 1, 31, 9))", Once("2030-01-31T09:00:00+00:00")),
        ("once(datetime(2030, 1, 31, 9, tzinfo=UTC))", Once("2030-01-31T09:00:00+00:00")),
        ("once(datetime(2030, 1, 31, tzinfo=timezone.utc))", Once("2030-01-31T00:00:00+00:00")),
        ("once(dt.datetime(2030, 1, 31, tzinfo=timezone(timedelta(hours=1))))", Once("2030-01-30T23:00:00+00:00")),
        (
            "once(datetime(2030, 7, 1, 9, tzinfo=ZoneInfo('Europe/Paris')), timezone='Europe/Paris')",
            Once("2030-07-01T09:00:00+02:00", "Europe/Paris"),
        ),
        ("once(at='2030-01-31T09:00', timezone='UTC')", Once("2030-01-31T09:00:00+00:00")),
        ("once('2030-01-31T09:00')", Once("2030-01-31T09:00:00+00:00")),
        ("once(datetime.fromisoformat('2030-01-31'))", Once("2030-01-31T00:00:00+00:00")),
    ],
)
def test_a_schedule_is_stored_as_the_schedules_store_it(written: str, spec: Cron | Interval | Once) -> None:
    assert decode_spec(json.dumps(option(f"schedule={written}")["schedule"])) == spec


@pytest.mark.behaviour("workflows:parse:not-literal")
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("name=NAME", "name: must be written out, because it is read without running the code; NAME is not a literal"),
        ("name=3", 'name: must look like "name"'),
        ("affinity={'gpu': 1}", 'affinity: must look like {"label": "value"}'),
        ("affinity=dict(gpu='x')", "affinity: must be written out"),
        ("secret_requests='KEY'", 'secret_requests: must look like ["NAME"]'),
        ("requests=8", "requests: must look like ResourceRequest("),
        ("requests=ResourceRequest(cpu={1: 2})", "requests: cpu must be a number, text or a list of them"),
        ("schedule='0 9 * * *'", "schedule: must look like cron("),
        ("schedule=cron(EXPRESSION)", "schedule: must be written out"),
        ("schedule=cron('61 * * * *')", "schedule: cron '61 * * * *': the minute is wrong"),
        ("schedule=cron('0 0 31 2 *')", "never fires"),
        ("schedule=cron()", "schedule: cron: cron() missing 1 required positional argument"),
        ("schedule=interval()", "schedule: interval: give at least one second"),
        ("schedule=once(datetime(2030, 13, 1))", "schedule: datetime: month must be in 1..12"),
        ("schedule=once('tomorrow')", "write the time as 2030-01-31T09:00"),
        ("schedule=once('2030-01-31', 'UTC', 3)", "schedule: once: "),
        ("schedule=once(datetime.now())", "schedule: must be written out"),
        ("**OPTIONS", "options cannot be unpacked with **"),
        ("afinity={}", "unknown option 'afinity'; did you mean 'affinity'?"),
        ("name='1x'", "the workflow name '1x' must match"),
        ("name='x' * 65", "must be written out"),
        (f"name='{'x' * 65}'", "at most 64 characters"),
        ("namespace='Upper'", "the namespace 'Upper' must match"),
        (f"namespace='{'x' * 65}'", "at most 64 characters"),
        ("namespace='a/b'", "the namespace 'a/b' must match"),
        ("affinity={'a': '\\ud800'}", "its options hold what JSON cannot"),
    ],
)
def test_an_option_that_cannot_be_used_is_named_with_its_line(given: str, said: str) -> None:
    with pytest.raises(SourceInvalid) as caught:
        option(given)
    assert said in str(caught.value)
    assert str(caught.value).startswith(("line 5: ", "line 6: "))
    assert "\n" not in str(caught.value)
    assert caught.value.details["line"] in (5, 6)


@pytest.mark.behaviour("workflows:parse:refused")
def test_what_is_no_file_of_workflows_is_refused_with_the_reason() -> None:
    assert refusal("def x(:\n  pass") == "the source does not parse: line 1, column 7: invalid syntax"
    assert "declares no workflow" in refusal("x = 1")
    assert "declares no workflow" in refusal("")
    assert "must be an `async def`" in refusal("from flux import workflow\n@workflow\ndef x(ctx): ...")
    assert "declares default/hello twice" in refusal(HELLO + HELLO)
    for decorator in ("workflow()", "workflow(name='x')", "workflow.with_options"):
        text = f"from flux import workflow\n@{decorator}\nasync def x(ctx): ..."
        assert refusal(text) == "line 2: write the decorator as @workflow or @workflow.with_options(…)"
    assert "by name" in refusal("from flux import workflow\n@workflow.with_options('x')\nasync def x(ctx): ...")
    with pytest.raises(SourceInvalid, match="not UTF-8 text: byte 3"):
        read_source(b"# \xff")
    with pytest.raises(SourceInvalid, match="does not parse"):
        read_source(HELLO.encode() + b"\0")
    for deep in ("(" * 100_000, "-" * 100_000 + "1", "a" + ".a" * 100_000, "[" * 150 + "]" * 150):
        with pytest.raises(SourceInvalid):
            read_source(deep.encode())


@pytest.mark.behaviour("workflows:parse:found")
def test_what_python_warns_of_is_no_reason_to_refuse() -> None:
    assert list(read("from flux import workflow\npattern = '\\d'\n@workflow\nasync def x(ctx): ...")) == ["default/x"]


@pytest.mark.behaviour("workflows:parse:size")
def test_a_source_of_more_than_a_mebibyte_is_too_large() -> None:
    full = HELLO.encode() + b"#" * (MAX_SOURCE_BYTES - len(HELLO))
    assert read_source(full).workflows
    with pytest.raises(TooLarge, match="1,048,577 bytes, 1,048,576 are allowed"):
        read_source(full + b"#")


@pytest.mark.behaviour("workflows:parse:refused")
@given(st.binary() | st.text().map(lambda text: text.encode()) | st.text().map(lambda text: (HELLO + text).encode()))
def test_whatever_is_uploaded_is_read_or_refused(data: bytes) -> None:
    with suppress(SourceInvalid, TooLarge):
        assert read_source(data).workflows
