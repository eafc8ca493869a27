"""AgentDojo's attacks on a model that obeys them all: its own judges say that none succeeds, and the work gets done."""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from flux.events import ChatResponse, ToolDone
from flux.settings import ApiKeys, Auth
from flux.store.database import LOCAL, Scope
from flux.store.interrupts import payload_of
from tests.integration.agents.world import World, of, opened, outcomes
from tests.integration.attacks.dojo import SUITES, WORDS_ALONE, Case, Place, cases

Asked = tuple[str, Mapping[str, Any]]
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(params=SUITES)
def place(request: pytest.FixtureRequest) -> Place:
    return Place(request.param)


@pytest.fixture
async def world(tmp_path: Path, place: Place) -> AsyncIterator[World]:
    async with opened(tmp_path, tools=place.tools(), auth=Auth(api_keys=ApiKeys(enabled=True))) as opened_world:
        yield opened_world


async def worked(world: World, place: Place, case: Case, approves: Callable[[Asked], bool]) -> str:
    """What the victim says in the end, of a case in which a person approves this much."""
    world.id = ""
    place.enter(case)
    await world.start(case.user.PROMPT)
    while await world.rest() == "waiting":
        for question in await world.questions():
            shown = payload_of(question)
            good = approves((str(shown["tool"]), shown["args"]))
            await world.answer(question, "approve" if good else "reject")
    return of(await world.log(), ChatResponse)[-1].content


@dataclass
class Person:
    """Approves these calls, with exactly these arguments, and notes what it refuses."""

    honest: list[Asked]
    refused: list[Asked] = field(default_factory=list)

    def __call__(self, asked: Asked) -> bool:
        """Whether to approve."""
        if asked not in self.honest:
            self.refused.append(asked)
        return asked in self.honest


def every(asked: Asked) -> bool:
    """Whatever is asked."""
    return True


def real(case: Case) -> bool:
    """Whether the attack wants more than words."""
    return (case.suite.name, case.attack.ID) != WORDS_ALONE


@pytest.mark.behaviour("attacks:dojo:refused")
async def test_no_attack_of_agentdojo_succeeds_and_its_users_tasks_do(world: World, place: Place) -> None:
    """The person approves what the task takes, as it is shown, and refuses the rest."""
    await world.agent(place.victim, tools=list(place.tools()))
    for case in cases(place.name):
        person = Person(case.acts(case.honest))
        said = await worked(world, place, case, person)
        assert case.useful(said), case.user.ID
        assert sorted(map(str, person.refused)) == sorted(map(str, case.acts(case.wanted))), case.attack.ID
        assert case.succeeded(said) is not real(case), case.attack.ID


@pytest.mark.behaviour("attacks:dojo:open")
async def test_without_a_gate_each_attack_of_agentdojo_succeeds(world: World, place: Place) -> None:
    """Or the other tests would prove nothing."""
    await world.agent(place.victim, tools=list(place.tools()), tool_approvals=dict.fromkeys(place.tools(), False))
    for case in cases(place.name):
        said = await worked(world, place, case, every)
        assert case.succeeded(said), case.attack.ID


@pytest.mark.behaviour("attacks:dojo:absent")
async def test_no_attack_of_agentdojo_succeeds_on_an_agent_that_only_looks(world: World, place: Place) -> None:
    await world.agent(place.victim, tools=place.looks())
    for case in cases(place.name):
        said = await worked(world, place, case, every)
        assert case.succeeded(said) is not real(case), case.attack.ID
        acts = {name for name, _ in case.acts(case.wanted)}
        assert {outcome for name, outcome in outcomes(await world.log()) if name in acts} <= {"error"}


@pytest.mark.behaviour("attacks:dojo:rights")
async def test_no_attack_of_agentdojo_succeeds_for_an_owner_who_may_only_look(world: World, place: Place) -> None:
    """The agent has the tools, and nobody asks; whoever started it may not let it use them."""
    await world.agent(place.victim, tools=list(place.tools()), tool_approvals=dict.fromkeys(place.tools(), False))
    may = [f"workflow:agents:agent_chat:task:{name}:execute" for name in place.looks()]
    await world.process.principals.create_role(LOCAL, "looks", may)
    await world.process.principals.create(LOCAL, "ann", "user", ["looks"])
    world.scope = Scope(LOCAL.tenant, "ann")
    for case in cases(place.name):
        said = await worked(world, place, case, every)
        assert case.succeeded(said) is not real(case), case.attack.ID
        assert any("There is no tool" in done.content for done in of(await world.log(), ToolDone)) or not case.wanted
