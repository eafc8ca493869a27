"""Each benchmark runs, with tiny numbers; nothing here is timed."""

import importlib
from pathlib import Path

import pytest

from tests.benchmarks.frame import TINY, Row, table
from tests.benchmarks.run import NAMES, main

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/schedstat").exists(), reason="processor time of another process is read from Linux's /proc"
)


@pytest.mark.parametrize("name", NAMES)
async def test_a_benchmark_gives_figures(name: str, tmp_path: Path) -> None:
    rows: list[Row] = await importlib.import_module(f"tests.benchmarks.{name}").measure(TINY, tmp_path)
    assert rows
    assert all(row.note if row.figure is None else row.figure >= 0 for row in rows)
    assert all(row.figure == 100 for row in rows if row.unit == "%")
    assert table({name: rows})


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["tunr"])
    assert "there is no tunr" in capsys.readouterr().err
