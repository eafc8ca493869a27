"""Which work goes to which worker."""

import pytest

from flux.engine.dispatching.pools import MAX_LABELS, Offer, ResourceRequest, Resources, pool_of, pools_of
from flux.errors import InvalidInput


@pytest.mark.behaviour("scale:pools:offer")
def test_a_worker_serves_the_pool_of_every_part_of_its_labels() -> None:
    labels = {"zone": "eu", "gpu": "yes"}
    assert pools_of(labels) == ("default", "gpu=yes", "zone=eu", "gpu=yes,zone=eu")
    assert pool_of(labels) in pools_of(labels)
    assert pool_of({}) == "default"
    assert pool_of({"zone": "us"}) not in pools_of(labels)


@pytest.mark.behaviour("scale:pools:offer")
@pytest.mark.parametrize(
    "labels", [{"a|b": "c"}, {"a": "b=c"}, {"": "x"}, {"a": ""}, {str(n): "x" for n in range(MAX_LABELS + 1)}]
)
def test_labels_that_cannot_be_pools_are_refused(labels: dict[str, str]) -> None:
    with pytest.raises(InvalidInput):
        pools_of(labels)


@pytest.mark.behaviour("scale:pools:offer")
def test_a_worker_takes_what_its_resources_meet() -> None:
    offer = Offer(("default",), Resources(cpu=2, memory=1000, packages=frozenset({"pandas"})))
    assert offer.takes("default", None)
    assert offer.takes("default", ResourceRequest(cpu=2, packages=("pandas",)).to_json())
    assert not offer.takes("default", ResourceRequest(gpu=1).to_json())
    assert not offer.takes("default", "not a request")
    assert not offer.takes("other", None)
