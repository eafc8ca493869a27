"""What flux.testing gives to tests of agents."""

from pathlib import Path

import pytest

from flux.testing import CrashAt, EffectCounter


@pytest.mark.behaviour("durability:testing:crash-at")
def test_a_crash_is_asked_for_by_a_variable() -> None:
    harmless = CrashAt.from_environment({})
    for _ in range(3):
        harmless.before()
        harmless.after()
    assert harmless.commits == 3
    later = CrashAt.from_environment({"FLUX_TEST_CRASH_AT": "after:2"})
    later.before()
    later.after()
    later.before()  # the second commit is not durable yet
    assert later.commits == 2


@pytest.mark.behaviour("durability:testing:crash-at")
@pytest.mark.parametrize("text", ["3", "before", "before:", "during:1", "after:0", "after:-1", "after:x"])
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="before:N or after:N"):
        CrashAt.from_environment({"FLUX_TEST_CRASH_AT": text})


@pytest.mark.behaviour("durability:testing:effects")
def test_effects_are_counted_across_counters_and_a_cut_line_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "effects"
    assert EffectCounter(path).read() == []
    EffectCounter(path).add("pay", amount=3)
    EffectCounter(path).add("pay", amount=4)
    EffectCounter(path).add("look")
    with path.open("ab") as file:
        file.write(b'{"name":"pa')
    counter = EffectCounter(path)
    assert [effect.name for effect in counter.read()] == ["pay", "pay", "look"]
    assert (counter.count("pay"), counter.count("pay", amount=3), counter.count("pay", amount=5)) == (2, 1, 0)
