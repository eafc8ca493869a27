import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux.tools.glob import matcher


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("*.py", ["a.py", "src/deep/a.py", ".hidden.py"], ["a.pyc", "a.py/b"]),
        ("./*.py", ["a.py"], ["src/a.py"]),
        ("src/*.py", ["src/a.py"], ["src/b/a.py", "a.py"]),
        ("src/**", ["src/a", "src/a/b"], ["other/a"]),
        ("**/test_*.py", ["test_a.py", "x/y/test_b.py"], ["x/a_test.py"]),
        ("src/**/t/**/*.py", ["src/t/a.py", "src/x/t/y/z/a.py"], ["src/a.py"]),
        ("*.{js,ts}", ["a.js", "b/a.ts"], ["a.jsx"]),
        ("[ab]?.t[!x]t", ["a1.txt".replace("x", "e"), "bz.tat"], ["c1.tet", "a1.txt"]),
        ("a.b", ["a.b"], ["aXb"]),
    ],
)
@pytest.mark.behaviour("tools:search:glob")
def test_patterns(pattern: str, matching: list[str], other: list[str]) -> None:
    matches = matcher(pattern)
    assert [path for path in matching if not matches(path)] == []
    assert [path for path in other if matches(path)] == []


NAMES = st.text("ab.*?[]{},-!", min_size=1, max_size=5).filter(lambda name: name != "..")


@given(st.lists(NAMES, min_size=1, max_size=6), st.lists(st.text("ab.", min_size=1), min_size=1, max_size=6))
def test_any_pattern_has_an_answer(pattern: list[str], path: list[str]) -> None:
    assert matcher("/".join(pattern))("/".join(path)) in (True, False)


@given(st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=6), st.data())
def test_double_star_stands_for_any_directories(path: list[str], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(path) - 1))
    end = data.draw(st.integers(start, len(path) - 1))
    assert matcher("/".join([*path[:start], "**", *path[end:]]))("/".join(path))


def test_a_hostile_pattern_is_answered() -> None:
    assert not matcher("**/*a" * 20 + "*b")("/".join(["a" * 200] * 30))
    with pytest.raises(ValueError, match="more than 200 alternatives"):
        matcher("{a,b}" * 12)


@pytest.mark.parametrize("pattern", ["..", "../*.py", "src/../../**"])
@pytest.mark.behaviour("tools:search:glob-up")
def test_a_pattern_that_goes_up_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="name the directory in `path`"):
        matcher(pattern)
