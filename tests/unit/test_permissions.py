"""Patterns of permissions: what they match, and how fast."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux.errors import InvalidInput
from flux.permissions import BUILT_IN, Permissions, check_pattern, quoted, unquoted
from flux.server.rules import RULES

WORDS = st.sampled_from(["a", "b", "agents", "*"])
NAMES = st.sampled_from(["a", "b", "agents"])
PATTERN = st.lists(WORDS, min_size=1, max_size=5).map(":".join)
ASKED = st.lists(NAMES, min_size=1, max_size=6).map(":".join)


def _as_regex(pattern: str) -> str:
    """The same pattern, said in another way."""
    *front, last = pattern.split(":")
    middle = ["[^:]+" if part == "*" else re.escape(part) for part in front]
    return ":".join([*middle, "[^:]+(:[^:]+)*" if last == "*" else re.escape(last)])


@pytest.mark.behaviour("auth:permissions:match")
@given(st.lists(PATTERN, max_size=4), ASKED)
def test_a_star_is_one_segment_and_at_the_end_all_the_rest(patterns: list[str], asked: str) -> None:
    wanted = any(re.fullmatch(_as_regex(pattern), asked) for pattern in patterns)
    assert Permissions(patterns).allow(asked) == wanted


@pytest.mark.behaviour("auth:permissions:match")
@given(PATTERN, PATTERN, ASKED)
def test_who_may_give_a_pattern_away_has_all_that_it_stands_for(mine: str, given_away: str, asked: str) -> None:
    if Permissions([mine]).allow(given_away) and Permissions([given_away]).allow(asked):
        assert Permissions([mine]).allow(asked)


@pytest.mark.behaviour("auth:permissions:match")
@given(st.lists(PATTERN, max_size=4), NAMES)
def test_names_of_a_list_are_those_that_are_allowed(patterns: list[str], name: str) -> None:
    permissions = Permissions(patterns)
    among = permissions.among("a:{}:b:agents")
    assert (among is None or name in among) == permissions.allow(f"a:{name}:b:agents")


@pytest.mark.behaviour("auth:permissions:names")
@given(st.text(max_size=20))
def test_a_name_is_one_segment_and_comes_back(name: str) -> None:
    assert ":" not in quoted(name)
    assert "*" not in quoted(name)
    assert unquoted(quoted(name)) == name


@pytest.mark.behaviour("auth:permissions:names")
@given(st.text(max_size=30))
def test_any_text_is_a_pattern_or_refused(text: str) -> None:
    try:
        assert check_pattern(text) == text
    except InvalidInput:
        return
    assert Permissions([text]).allow(text)
    assert not re.search(r"\s|::|^:|:$", text)


@pytest.mark.behaviour("auth:permissions:names")
@pytest.mark.parametrize("text", ["", ":", "a:", ":a", "a::b", "a b:c", "a:b*", "**", "a\n", "x" * 513, "a:\x1b[1m"])
def test_what_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="segments between colons"):
        check_pattern(text)


@pytest.mark.behaviour("auth:permissions:names")
def test_what_nobody_asks_for_is_refused_and_all_that_is_asked_for_is_a_pattern() -> None:
    with pytest.raises(InvalidInput, match="did you mean 'agent'"):
        check_pattern("agnet:*:read")
    asked = {one for rule in RULES.values() for one in (*getattr(rule, "all", ()), getattr(rule, "knows", None)) if one}
    assert len(asked) > 20
    for one in (*asked, *(pattern for patterns in BUILT_IN.values() for pattern in patterns)):
        check_pattern(re.sub(r"\{\w+\}", "name", one))


@pytest.mark.behaviour("auth:speed:check")
def test_a_check_takes_twenty_microseconds_at_most() -> None:
    many = Permissions([*BUILT_IN["operator"], *(f"agent:helper{n}:start" for n in range(100))])
    best = min(
        _seconds(many, [f"workflow:agents:agent_chat:task:tool{n}:no{m}" for n in range(1000)]) for m in range(5)
    )
    assert best < 20e-6


def _seconds(permissions: Permissions, asked: list[str]) -> float:
    began = time.process_time()
    for one in asked:
        permissions.allow(one)
    return (time.process_time() - began) / len(asked)
