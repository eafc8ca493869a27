"""What a worker is called, and where the sessions of an agent go."""

import re

import pytest

from flux.engine.dispatching.pools import pool_of_agent
from flux.engine.dispatching.presence import NAME, check_name, default_name
from flux.errors import InvalidInput


@pytest.mark.behaviour("scale:workers:names")
@pytest.mark.parametrize("host", ["vm", "web-1.example.org", "10-0-0-7", "", "x" * 300, "büro"])
def test_a_worker_without_a_name_is_called_by_its_host_and_process(host: str) -> None:
    name = default_name(host, 4_194_304)
    assert NAME.fullmatch(name)
    assert name.endswith("-4194304")


@pytest.mark.behaviour("scale:workers:names")
@pytest.mark.parametrize("name", ["", "9lives", "a b", "a/b", "a" * 65, "a\n", "ä"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape("must be a letter followed by")):
        check_name(name)


@pytest.mark.behaviour("scale:pools:agents")
def test_the_affinity_of_an_agent_is_the_pool_of_its_sessions() -> None:
    assert pool_of_agent('{"name": "a", "model": "m/m"}') == "default"
    assert pool_of_agent('{"name": "a", "affinity": {"zone": "eu", "gpu": "yes"}}') == "gpu=yes,zone=eu"
