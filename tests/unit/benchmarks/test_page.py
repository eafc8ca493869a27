"""The page of benchmarks."""

import re
from pathlib import Path

import pytest

from tests.benchmarks.run import NAMES

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "benchmarks.md"


@pytest.mark.behaviour("benchmarks:documented")
def test_the_page_names_each_benchmark() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(NAMES)
