"""What answers cost, by the parts of their prices."""

import pytest

from flux.agents.code.types import PromptCost, usage_of
from flux.messages import FREE, Costs, Usage
from flux.models import limits
from flux.store.executions import Spent

USED = Usage(input=10_000, output=500, cache_read=6_000, cache_write=2_000)


@pytest.mark.behaviour("models:usage:parts")
@pytest.mark.parametrize(
    ("name", "costs"),
    [
        ("anthropic/claude-sonnet-4-5", Costs(0.006, 0.0075, 0.0018, 0.0075)),
        ("openai/gpt-4o", Costs(0.01, 0.005, 0.0075, 0.0)),
        ("own/unknown", None),
    ],
)
def test_a_price_has_the_parts_of_the_table(name: str, costs: Costs | None) -> None:
    found = limits.costs(name.partition("/")[0], name.partition("/")[2], USED)
    assert (found is None) == (costs is None)
    if found is not None and costs is not None:
        wanted = (costs.input, costs.output, costs.cache_read, costs.cache_write)
        assert (found.input, found.output, found.cache_read, found.cache_write) == pytest.approx(wanted)


@pytest.mark.behaviour("models:usage:parts")
def test_what_several_calls_cost_is_added_by_its_parts() -> None:
    call = Usage(10, 5, 2, 1, Costs(1.0, 2.0, 0.25, 0.5))
    both = Spent().plus(call, 3.75).plus(call, 3.75).plus(Usage(1, 1), 0.5)
    assert usage_of(both).cost == PromptCost(2.0, 4.0, 0.5, 1.0, 8.0)
    assert (both.tokens - call - call).costs == FREE
