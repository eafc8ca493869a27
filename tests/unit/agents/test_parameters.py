"""Parameters of `agent()` that are of the wrong kind."""

from typing import Any

import pytest

from flux import task
from flux.errors import InvalidInput
from flux.tasks.ai import agent


@task
async def weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


def plain(city: str) -> str:
    return city


@task
async def anything(*words: str) -> str:
    return " ".join(words)


@pytest.mark.behaviour("inline:agent:wrong-kind")
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tools": "shell"}, r"tools: must be a list of .*write tools=\[\.\.\.\]"),
        ({"tools": weather}, "tools: must be a list"),
        ({"tools": [plain]}, "tools: .*not the function plain; decorate it with @task"),
        ({"tools": [weather, weather]}, "tools: two tasks are called weather"),
        ({"tools": [anything]}, "anything: a tool cannot take"),
        ({"agents": "clerk"}, "agents: must be a list"),
        ({"agents": [plain]}, "agents: must be what agent.. returned"),
        ({"skills": "./skills"}, "skills: must be a SkillCatalog"),
        ({"working_memory": True}, "working_memory: must be what working_memory.. returns, not bool True"),
        ({"long_term_memory": {"scope": "a"}}, "long_term_memory: must be what long_term_memory.. returns"),
        ({"system_prompt": None}, "system_prompt: must be text"),
        ({"response_format": dict}, "response_format: must be a class of Pydantic models"),
        ({"max_tokens": 10**20}, "max_tokens: should be less than or equal to"),
    ],
)
async def test_a_parameter_of_the_wrong_kind_is_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        await agent(**{"system_prompt": "", "model": "a/b", **given})


@pytest.mark.behaviour("inline:agent:wrong-kind")
async def test_an_instruction_that_is_no_text_is_refused() -> None:
    parrot = await agent("", model="scripted/echo", name="parrot")
    with pytest.raises(InvalidInput, match="instruction must be text, not int 5"):
        await parrot.function(5)
    with pytest.raises(InvalidInput, match="context must be text"):
        await parrot.function("hello", context={"a": 1})
