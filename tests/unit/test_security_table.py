"""Every control of docs/security.md names the tests that attack it."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RISKS = [f"ASI{number:02}" for number in range(1, 11)]


def named_in(folder: Path) -> set[str]:
    """The names of test functions below a folder."""
    found: set[str] = set()
    for file in sorted(folder.rglob("test_*.py")):
        nodes = ast.parse(file.read_text()).body
        functions = (node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
        found |= {node.name for node in functions if node.name.startswith("test_")}
    return found


@pytest.mark.behaviour("security:table:tested")
def test_each_risk_has_a_row_with_tests_and_each_attack_is_in_a_row() -> None:
    lines = (ROOT / "docs" / "security.md").read_text().splitlines()
    rows = {line.split()[1]: set(re.findall(r"`(test_\w+)`", line)) for line in lines if line.startswith("| ASI")}
    assert list(rows) == RISKS
    assert all(rows.values())
    named = set[str]().union(*rows.values())
    assert named <= named_in(ROOT / "tests")
    assert named_in(ROOT / "tests" / "integration" / "attacks") <= named
