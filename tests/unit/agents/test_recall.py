"""How texts become words, and which memories fit a question best."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux.agents.memory.recall import MAX_WORD, asked, indexed, ranked, words_of

pytestmark = pytest.mark.behaviour("memory:store:search")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Crème BRÛLÉE, crème!", ["creme", "brulee"]),
        ("favourite_colour-2", ["favourite", "colour", "2"]),
        ("ann@example.com", ["ann", "example", "com"]),
        ("Straße", ["strasse"]),
        ("東京都 ラーメン", ["東", "京", "都", "ラ", "ー", "メ", "ン"]),
        ("हिन्दी", ["हिन्दी"]),
        ("한국어", ["한국어"]),
        ("ﬁne ①", ["fine", "1"]),
        ("x" * 100, ["x" * MAX_WORD]),
        ("'\"* %_\0\n", []),
    ],
)
def test_a_text_has_these_words(text: str, words: list[str]) -> None:
    assert words_of(text) == words


@given(st.text())
def test_words_hold_nothing_that_means_something_to_a_database(text: str) -> None:
    words = words_of(text)
    assert len(set(words)) == len(words)
    for word in words:
        assert not set(word) & set(" '\"\\*%_&|!():<>^\0\n")
        assert 0 < len(word) <= MAX_WORD
    assert words_of(" ".join(words)) == words


@given(st.text())
def test_a_question_looks_for_words_of_its_own(text: str) -> None:
    assert set(asked(text)) <= set(words_of(text))
    assert len(asked(text)) <= 12


def test_everything_in_a_value_is_indexed() -> None:
    assert indexed("my-key", '{"name": ["Ann", 5, null, true], "at": {"home": "Rome"}}') == [
        "my", "key", "name", "ann", "5", "true", "at", "home", "rome"
    ]  # fmt: skip


IDS = st.lists(st.integers(0, 60), unique=True, max_size=40)


@given(st.dictionaries(st.sampled_from("abcdef"), IDS, max_size=6))
def test_those_with_all_words_come_first_and_nobody_twice(hits: dict[str, list[int]]) -> None:
    whole = sorted(set.intersection(*map(set, hits.values()))) if len(hits) > 1 else []
    found = ranked(hits, whole)
    assert len(found) == len(set(found)) == min(20, len({id for ids in hits.values() for id in ids}))
    first = found[: len(whole)]
    assert set(first) <= set(whole)
    assert first == sorted(first, reverse=True)
