"""How figures are held against targets, and what the table and the report say."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.frame import Row, median, p95, save, table


def row(**fields: Any) -> Row:
    values: dict[str, Any] = {"name": "first token", "figure": 6.0, "unit": "ms"}
    return Row(**values | fields)


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ({}, ""),
        ({"target": 6.0}, "ok"),
        ({"target": 5.0}, "over"),
        ({"target": 5.0, "at_least": True}, "ok"),
        ({"target": 7.0, "at_least": True}, "over"),
        ({"target": 5.0, "limit": 2.0, "over": True}, "ok"),
        ({"target": 5.0, "limit": 0.5, "over": True}, "over"),
        ({"target": 5.0, "figure": None, "note": "no terminal"}, ""),
    ],
)
def test_a_figure_meets_its_target_or_not(fields: dict[str, Any], verdict: str) -> None:
    assert row(**fields).verdict == verdict


def test_a_figure_is_told_by_its_difference_where_the_target_bounds_that_and_else_by_the_ratio() -> None:
    assert row(limit=2.0, over=True).beyond == 4.0
    assert row(limit=2.0).beyond == 3.0
    assert row().beyond is None


def test_statistics() -> None:
    values = [float(n) for n in range(100, 0, -1)]
    assert median(values) == 50.5
    assert p95(values) == 96.0
    assert p95([3.0]) == 3.0


def test_the_table_has_one_line_per_row_and_names_each_benchmark_once() -> None:
    lines = table(
        {
            "turn": [
                row(limit=0.5, limit_is="direct", target=5.0, over=True),
                row(name="tokens", unit="", figure=50.0),
            ],
            "cold": [row(name="flux chat", figure=None, note="no terminal", target=1.0)],
        }
    ).splitlines()
    assert [" ".join(line.split()) for line in (lines[0], *lines[2:])] == [
        "measure figure limit in this run beyond the limit target",
        "turn first token 6.00 ms 0.50 direct +5.50 ms <= 5 over the limit over",
        "tokens 50.00",
        "cold flux chat not measured no terminal <= 1",
    ]


def test_the_report_holds_what_the_table_derives(tmp_path: Path) -> None:
    path = tmp_path / "new" / "figures.json"
    save(path, {"turn": [row(limit=2.0, target=5.0)]})
    report = json.loads(path.read_text())
    (only,) = report["rows"]
    assert only["benchmark"] == "turn"
    assert (only["figure"], only["limit"], only["beyond"], only["verdict"]) == (6.0, 2.0, 3.0, "over")
    assert report["machine"]["processors"]
