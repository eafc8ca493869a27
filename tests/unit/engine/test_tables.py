"""numpy and pandas among the values of the log."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest

from flux.engine.encoding.values import decode_value, encode_value, json_value
from flux.errors import ValueNotStorable

FRAME = pd.DataFrame(
    {
        "a": [1, 2, 3],
        "b": ["x", None, "z"],
        "c": pd.date_range("2026-01-01", periods=3, tz="Europe/Berlin"),
        "d": pd.Categorical(["u", "v", "u"], categories=["v", "u"], ordered=True),
        "e": pd.array([1, None, 3], dtype="Int64"),
        "f": [1.0, float("nan"), 2],
        "g": [[1], {"x": 2}, None],
        "h": pd.date_range("2026-01-01", periods=3),
        "i": pd.period_range("2026-01", periods=3, freq="M"),
        "j": pd.to_timedelta([1, 2, 3], unit="s"),
        "k": [True, False, True],
    }
)


def kept(value: Any) -> Any:
    """A value after its way through the log."""
    return decode_value(msgspec.json.decode(msgspec.json.encode(encode_value(value))))


@pytest.mark.behaviour("values:round-trip:tables")
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6).reshape(2, 3),
        np.arange(6).reshape(2, 3).T,
        np.array([]),
        np.array(["a", "bb"]),
        np.array([1, None, {"a": (1,)}], dtype=object),
        np.array(3.5),
        np.zeros((0, 3)),
        np.array(["2026-01-01"], dtype="M8[ns]"),
        np.array([1], dtype=">i4"),
    ],
    ids=repr,
)
def test_arrays_come_back(array: Any) -> None:
    back = kept(array)
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert (back == array).all()
    assert back.flags.writeable


@pytest.mark.behaviour("values:round-trip:tables")
@pytest.mark.parametrize(
    "value",
    [
        np.float64(1.5),
        np.int8(3),
        np.bool_(True),
        np.str_(""),
        np.datetime64("2026-01-01"),
        pd.Timestamp("2026-01-01 01:02:03.123456789"),
        pd.Timestamp("2026-10-25 00:30", tz="UTC").tz_convert("Europe/Berlin"),
        pd.Timedelta("1ns"),
        pd.Period("2026-01", freq="M"),
    ],
    ids=repr,
)
def test_scalars_come_back(value: Any) -> None:
    back = kept(value)
    assert type(back) is type(value)
    assert back == value
    assert getattr(back, "tz", None) == getattr(value, "tz", None)


@pytest.mark.behaviour("values:round-trip:tables")
def test_missing_marks_come_back() -> None:
    assert kept(pd.NaT) is pd.NaT
    assert kept(pd.NA) is pd.NA


@pytest.mark.behaviour("values:round-trip:tables")
@pytest.mark.parametrize(
    "frame",
    [
        FRAME,
        FRAME.set_index("c"),
        FRAME.set_index(["a", "b"]),
        FRAME[[]],
        pd.DataFrame(),
        pd.DataFrame([[1, 2], [3, 4]], columns=["x", "x"]),
        FRAME.pivot_table(index="a", columns="b", values="f"),
        pd.DataFrame({"a": [1, 2]}, index=pd.date_range("2026", periods=2, freq="D")),
    ],
)
def test_frames_come_back(frame: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(kept(frame), frame)


@pytest.mark.behaviour("values:round-trip:tables")
def test_series_and_indexes_come_back() -> None:
    for name in FRAME:
        pd.testing.assert_series_equal(kept(FRAME[name]), FRAME[name])
    sums = FRAME.groupby("d", observed=True)["f"].sum()
    pd.testing.assert_series_equal(kept(sums), sums)
    index = pd.Index([1, 2], name="n")
    pd.testing.assert_index_equal(kept(index), index)


@pytest.mark.behaviour("values:readable:plain")
def test_tables_are_shown_as_rows() -> None:
    shown = json_value({"frame": FRAME[["a", "b", "h", "i", "j"]], "array": np.arange(2), "none": pd.NaT})
    assert shown["frame"][1] == {"a": 2, "b": None, "h": "2026-01-02T00:00:00", "i": "2026-02", "j": 2.0}
    assert shown["array"] == [0, 1]
    assert shown["none"] is None


@pytest.mark.behaviour("values:refused:named")
def test_arrays_of_records_are_refused() -> None:
    with pytest.raises(ValueNotStorable, match="numpy"):
        encode_value(np.zeros(1, dtype=[("a", "i4")]))
