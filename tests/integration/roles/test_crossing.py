"""Two tenants in one database: whatever one of them tries with what belongs to the other, it is not there."""

import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flux.agents.plans import state as plans
from flux.engine.intake.answers import Decision
from flux.engine.intake.inputs import NewMessage
from flux.errors import AgentNotFound, InterruptNotFound, SessionNotFound
from flux.events import ContextFrozen
from flux.roles import Ref, Runtime
from flux.store import artifacts, executions, interrupts, log
from flux.testing import Call, Reply
from tests.integration.roles.shop import USUAL, Shop, results

Try = Callable[[Runtime, str], Awaitable[Any]]


async def _process(runtime: Runtime) -> Any:
    return await runtime.process()


async def _answer(runtime: Runtime, id: str) -> Any:
    return await runtime.respond_to_approval(id, approved=True)


async def _answer_in(runtime: Runtime, id: str) -> Any:
    return await (await _process(runtime)).sessions.answer(runtime.scope, id, id, Decision("approve"))


async def _say(runtime: Runtime, id: str) -> Any:
    return await (await _process(runtime)).sessions.send(runtime.scope, id, NewMessage("hello"))


async def _stop(runtime: Runtime, id: str) -> Any:
    return await (await _process(runtime)).sessions.cancel(runtime.scope, id)


async def _end(runtime: Runtime, id: str) -> Any:
    return await (await _process(runtime)).sessions.end(runtime.scope, id)


async def _read(runtime: Runtime, id: str) -> Any:
    return await (await _process(runtime)).database.read(log.read(runtime.scope, id))


async def _read_tree(runtime: Runtime, id: str) -> Any:
    return await (await _process(runtime)).database.read(log.read_in_tree(runtime.scope, id, ContextFrozen))


async def _plan(runtime: Runtime, id: str) -> Any:
    return await plans.newest((await _process(runtime)).database, runtime.scope, id)


async def _artifact(runtime: Runtime, id: str) -> Any:
    return await (await _process(runtime)).database.scan(artifacts.read_in_tree(runtime.scope, id, id))


async def _questions(runtime: Runtime, id: str) -> Any:
    return await (await _process(runtime)).database.read(interrupts.list_open(runtime.scope, id))


async def _look(runtime: Runtime, id: str) -> Any:
    return await (await _process(runtime)).database.read(executions.get(runtime.scope, id))


async def _settle(runtime: Runtime, id: str) -> Any:
    return await runtime.settled(id)


async def _pending(runtime: Runtime, id: str) -> Any:
    return await runtime.pending_approvals(id)


TRIES: tuple[Try, ...] = (
    _answer, _answer_in, _say, _stop, _end, _read, _read_tree, _plan, _artifact, _questions, _look, _settle, _pending,
)  # fmt: skip
#: What is not there looks so.
NOTHING: tuple[Any, ...] = (None, [], (), {})
#: Of each tenant: a session, its question, a session of a specialist, a reference and the artifact behind it.
THINGS = ("session", "question", "counted", "handle", "artifact")


@pytest.mark.behaviour("roles:tenants:crossing")
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.booleans(), st.sampled_from(TRIES), st.sampled_from(THINGS)), min_size=20, max_size=40))
async def test_nobody_crosses(tries: list[tuple[bool, Try, str]]) -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        shops = [_shop("acme"), _shop("other")]
        async with shops[0].open(home) as first, shops[1].open(home) as second:
            runtimes = (first, second)
            owned = [await _things(shop, runtime) for shop, runtime in zip(shops, runtimes, strict=True)]
            before = [await _state(one, things) for one, things in zip(runtimes, owned, strict=True)]
            for who, attempt, thing in tries:
                try:
                    found = await attempt(runtimes[who], owned[not who][thing])
                except (SessionNotFound, InterruptNotFound, AgentNotFound):
                    continue
                assert found in NOTHING, (attempt.__name__, thing, found)
            for me in (0, 1):
                calls = (Call("total", {"table": owned[1 - me]["handle"]}),)
                shops[me].script = {**USUAL, "counter": [Reply("", calls=calls), lambda r: Reply(results(r))]}
                tried = await runtimes[me].run_specialist("counter", "Count what is theirs.")
                assert tried.text.startswith("there is no reference")
            assert [await _state(one, things) for one, things in zip(runtimes, owned, strict=True)] == before


def _shop(tenant: str) -> Shop:
    def fetch() -> Ref:
        """Fetch a table."""
        return Ref("table", [{"owner": tenant}])

    def total(table: Ref) -> str:
        """Say whose it is."""
        return str(table.value)

    script = {**USUAL, "counter": [Reply("", calls=(Call("fetch"),)), lambda request: Reply(results(request))]}
    return Shop(script, tenant=tenant, agents={"counter": {"tools": [fetch, total]}})


async def _things(shop: Shop, runtime: Runtime) -> dict[str, str]:
    asked = await runtime.run("Order fruit.", session="desk")
    counted = await runtime.run_specialist("counter", "Count.")
    handle = str(counted.data["ref"])
    (question,) = asked.pending_approvals
    return {
        "session": asked.session,
        "question": question.id,
        "counted": counted.session,
        "handle": handle,
        "artifact": handle.rpartition(":")[2],
    }


async def _state(runtime: Runtime, things: dict[str, str]) -> list[Any]:
    """What must be as it was: how long the logs are, and what is asked."""
    rows = [await _look(runtime, things[name]) for name in ("session", "counted")]
    return [*(row.head for row in rows), await runtime.pending_approvals("desk")]
