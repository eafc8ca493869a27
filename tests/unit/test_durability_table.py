"""Every promise of docs/durability.md names the test that keeps it."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.behaviour("durability:table:tested")
def test_each_row_of_the_table_names_a_crash_test_and_each_crash_test_has_a_row() -> None:
    lines = (ROOT / "docs" / "durability.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("|") and "`test_" in line]
    named = [name for row in rows for name in re.findall(r"`(test_\w+)`", row)]
    files = sorted((ROOT / "tests" / "acceptance").glob("test_crash*.py"))
    body = [node for file in files for node in ast.parse(file.read_text()).body]
    tests = [node.name for node in body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    assert sorted(named) == sorted(tests)
    assert len(rows) == len([line for line in lines if line.startswith("|")]) - 2
