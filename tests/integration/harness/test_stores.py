"""Session stores: a conversation is taken from one when its session is made, and given to it after each operation."""

import pytest

from flux import init_agent
from flux.agents.code.stores import SessionKey
from flux.agents.harness.host import close_hosts
from flux.errors import InvalidInput
from flux.testing import Reply
from flux.testing.session_stores import CHECKS, Broken, MemorySessionStore, check
from tests.integration.harness.conftest import MakeAgent
from tests.integration.harness.test_sessions import texts

KEY = SessionKey("desk", "t-1", "default")


@pytest.mark.behaviour("harness:store:contract")
@pytest.mark.parametrize("name", CHECKS)
async def test_the_store_in_memory_keeps_the_contract(name: str) -> None:
    await check(name, MemorySessionStore)


class Forgetful(MemorySessionStore):
    async def load(self, key: SessionKey) -> bytes | None:
        return next(iter(self.saved.values()), None)


@pytest.mark.behaviour("harness:store:contract")
async def test_a_store_that_takes_one_key_for_another_is_found_out() -> None:
    with pytest.raises(Broken, match="t-1/default"):
        await check("keys_are_apart_whatever_characters_they_hold", Forgetful)


@pytest.mark.behaviour("harness:store:used")
async def test_a_conversation_goes_on_from_a_store_in_another_database(
    desk: MakeAgent, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    store = MemorySessionStore()
    agent = desk([Reply("One."), Reply("Two."), Reply("Three.")], persist=store)
    session = await (await init_agent(agent, id="t-1")).session()
    await session.prompt("1")
    await session.shell("echo hi")
    assert list(store.saved) == [KEY]
    await close_hosts()
    monkeypatch.setenv("FLUX_HOME", f"{tmp_path}/elsewhere")
    session = await (await init_agent(agent, id="t-1")).session()
    before = texts(await session.history())
    assert before[:2] == ["1", "One."]
    assert (await session.prompt("3")).text == "Three."
    store.saved[KEY] = b"not asked again"
    await (await init_agent(agent, id="t-1")).session()
    await session.delete()
    assert store.saved == {}


@pytest.mark.behaviour("harness:store:used")
async def test_what_is_no_conversation_or_no_store_is_refused(desk: MakeAgent) -> None:
    store = MemorySessionStore()
    store.saved[KEY] = b"not a conversation"
    harness = await init_agent(desk([Reply("x")], persist=store), id="t-1")
    with pytest.raises(InvalidInput, match="persist: what the session store keeps is no conversation"):
        await harness.session()
    with pytest.raises(InvalidInput, match=r"a session store has load, save, delete\(\); dict does not"):
        await init_agent(desk([Reply("x")], persist={}), id="t-1")
