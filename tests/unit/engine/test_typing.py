"""What a type checker of a program that uses Flux sees: mypy reads the claims, the tests only run the code."""

import importlib.resources
from typing import Any, assert_type

import pytest

import flux
from flux import task
from flux.engine.workflows.options import TaskOptions, TaskWords
from flux.engine.workflows.workflow import WorkflowOptions, WorkflowWords
from flux.errors import InvalidInput

pytestmark = pytest.mark.behaviour("public:types")


@task
async def double(x: int) -> int:
    return x * 2


@task
def describe(x: int) -> dict[str, Any]:
    return {"x": x}


@task.with_options(timeout=3)
async def name(x: int) -> str:
    return str(x)


async def test_a_call_of_a_task_has_the_type_of_its_result() -> None:
    assert_type(await double(2), int)
    assert_type(await describe(2), dict[str, Any])
    assert_type(await name(2), str)
    assert_type(await double.with_options(name="d")(2), int)
    assert_type(await double.map([1, 2]), list[int])


async def test_wrong_arguments_are_found() -> None:
    with pytest.raises(TypeError):
        await double("2", "3")  # type: ignore[call-overload]


def test_the_package_says_that_it_is_typed() -> None:
    assert importlib.resources.files(flux).joinpath("py.typed").is_file()


def test_what_flux_offers_can_be_listed() -> None:
    assert set(flux.__all__) <= set(dir(flux))


def test_the_words_for_type_checkers_are_the_options() -> None:
    assert list(TaskWords.__annotations__) == list(TaskOptions.__struct_fields__)
    assert list(WorkflowWords.__annotations__) == list(WorkflowOptions.__struct_fields__)
    with pytest.raises(InvalidInput, match="no option retries"):
        task.with_options(retries=3)  # type: ignore[call-arg]
