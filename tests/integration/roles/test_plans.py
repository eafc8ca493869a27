"""Typed plans: stored, approved by a person, executed action by action, and told about."""

from pathlib import Path

import pytest

from tests.integration.roles.shop import USUAL, Shop, ended, states


@pytest.mark.behaviour("roles:plan:whole")
async def test_a_plan_is_stored_approved_and_executed(tmp_path: Path) -> None:
    shop = Shop(USUAL)
    async with shop.open(tmp_path) as runtime:
        asked = await runtime.run("Order fruit.")
        assert asked.state == "waiting", asked
        (question,) = asked.pending_approvals
        assert (question.kind, question.channel, question.subject) == ("plan", "plans", "restock")
        assert shop.shelf.done == []
        await runtime.respond_to_approval(question.id, approved=True)
        done = await runtime.settled(asked.session)
        assert (done.state, done.text) == ("completed", "All done."), done
        assert shop.shelf.done == ["create apple 1", "create pear 1"]
        assert ended(done.plan) == {"a": "done", "b": "done"}
        assert await states(runtime, done.session) == [
            (1, "draft"), (1, "awaiting_approval"), (1, "approved"), (1, "executing"), (1, "completed"),
        ]  # fmt: skip
