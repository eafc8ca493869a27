"""Arrays and tables among recorded values: numpy's and pandas'.

Neither package is imported to keep a value: who has such a value has imported it. Reading one imports it.
"""

from __future__ import annotations

import base64
import importlib
import sys
from collections.abc import Callable
from typing import Any

from flux.errors import MissingPackage

Inner = Callable[[Any], Any]
Fields = dict[str, Any]

#: Kinds of numpy's plain data: booleans, numbers, texts, bytes, times. Objects are kept one by one.
PLAIN = frozenset("biufcSUmM")


def encode(value: Any, inner: Inner) -> tuple[str, Fields] | None:
    """The kind and the fields of the envelope of an array or table; None when it is none."""
    numpy, pandas = sys.modules.get("numpy"), sys.modules.get("pandas")
    if numpy is not None and isinstance(value, numpy.ndarray | numpy.generic):
        return _numpy(value, numpy, inner)
    if pandas is not None:
        return _pandas(value, pandas, inner)
    return None


def decode(envelope: Fields, kind: str, inner: Inner) -> Any:
    """The array or table again.

    :raises MissingPackage: numpy or pandas is not installed
    """
    return DECODERS[kind](envelope, inner)


def rows(value: Any) -> Any:
    """An array or table as lists: a DataFrame as one object per row."""
    if hasattr(value, "to_dict") and hasattr(value, "columns"):
        return value.to_dict("records")
    return value.tolist() if hasattr(value, "tolist") else _shown(value)


def _shown(value: Any) -> Any:
    if type(value).__name__ in ("NaTType", "NAType"):
        return None
    if hasattr(value, "total_seconds"):
        return value.total_seconds()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingPackage(f"the kept value is made by {name}; install it: pip install {name}") from error


# --- numpy


def _numpy(value: Any, numpy: Any, inner: Inner) -> tuple[str, Fields] | None:
    array = numpy.asarray(value)
    if isinstance(value, numpy.generic):
        if array.dtype.kind not in PLAIN:
            return None
        return "numpy", _raw(array)
    if type(value) is not numpy.ndarray:
        return None
    if array.dtype.kind == "O":
        return "ndarray", {"shape": list(array.shape), "value": [inner(item) for item in array.ravel().tolist()]}
    if array.dtype.kind not in PLAIN:
        return None
    return "ndarray", {"shape": list(array.shape), **_raw(array)}


def _raw(array: Any) -> Fields:
    return {"dtype": array.dtype.str, "value": base64.b64encode(array.tobytes()).decode()}


def _to_array(envelope: Fields, inner: Inner) -> Any:
    numpy = _package("numpy")
    shape = tuple(envelope["shape"])
    if "dtype" in envelope:
        data = bytearray(base64.b64decode(envelope["value"]))
        return numpy.ndarray(shape, numpy.dtype(envelope["dtype"]), buffer=data)
    made = numpy.empty(len(envelope["value"]), dtype=object)
    for place, item in enumerate(envelope["value"]):
        made[place] = inner(item)
    return made.reshape(shape)


def _to_scalar(envelope: Fields, inner: Inner) -> Any:
    return _to_array({**envelope, "shape": [1]}, inner)[0]


# --- pandas


def _pandas(value: Any, pandas: Any, inner: Inner) -> tuple[str, Fields] | None:
    cls = type(value)
    if cls is pandas.DataFrame:
        columns = [_column(value.iloc[:, place], inner) for place in range(value.shape[1])]
        return "DataFrame", {"columns": _index(value.columns, inner), "index": _index(value.index, inner)} | {
            "value": columns
        }
    if cls is pandas.Series:
        return "Series", {
            "name": inner(value.name),
            "index": _index(value.index, inner),
            "value": _column(value, inner),
        }
    if isinstance(value, pandas.Index):
        index = _index(value, inner)
        return index.pop("kind"), index
    if cls is pandas.Period:
        return "Period", {"freq": value.freqstr, "value": value.ordinal}
    if cls is pandas.Timestamp or cls is pandas.Timedelta or value is pandas.NaT:
        return _moment(value, pandas, inner)
    return ("NA", {"value": None}) if value is pandas.NA else None


def _moment(value: Any, pandas: Any, inner: Inner) -> tuple[str, Fields]:
    """Counted in its own unit: its text would lose it."""
    if value is pandas.NaT:
        return "Timestamp", {"value": None}
    told: Fields = {"unit": value.unit, "value": inner(value.asm8.astype("int64").item())}
    if zone := getattr(value, "tz", None):
        told["zone"] = str(zone)
    return type(value).__name__, told


def _column(series: Any, inner: Inner) -> Fields:
    """The values of a column: numpy's as they are, others one by one with the name of their type."""
    dtype = series.dtype
    if getattr(dtype, "categories", None) is not None:
        categories = _index(dtype.categories, inner)
        return {"ordered": bool(dtype.ordered), "categories": categories, "value": series.cat.codes.tolist()}
    if isinstance(dtype, sys.modules["numpy"].dtype):
        return {"array": inner(series.to_numpy())}
    return {"dtype": str(dtype), "value": [inner(item) for item in series.astype(object).tolist()]}


def _index(index: Any, inner: Inner) -> Fields:
    name = type(index).__name__
    if name == "RangeIndex":
        return {"kind": name, "name": inner(index.name), "value": [index.start, index.stop, index.step]}
    if name == "MultiIndex":
        levels = [_index(index.get_level_values(place), inner) for place in range(index.nlevels)]
        return {"kind": name, "value": levels}
    told = {"kind": "Index", "name": inner(index.name), "value": _column(index.to_series(), inner)}
    freq = getattr(index, "freqstr", None)
    return told | ({"freq": freq} if freq and name != "PeriodIndex" else {})


def _to_frame(envelope: Fields, inner: Inner) -> Any:
    pandas = _package("pandas")
    index = _to_index(envelope["index"], inner)
    columns = [pandas.Series(_to_values(column, inner), index=index) for column in envelope["value"]]
    frame = pandas.concat(columns, axis=1) if columns else pandas.DataFrame(index=index)
    frame.columns = _to_index(envelope["columns"], inner)
    return frame


def _to_series(envelope: Fields, inner: Inner) -> Any:
    values, index = _to_values(envelope["value"], inner), _to_index(envelope["index"], inner)
    return _package("pandas").Series(values, index=index, name=inner(envelope["name"]))


def _to_values(column: Fields, inner: Inner) -> Any:
    pandas = _package("pandas")
    if "array" in column:
        values = inner(column["array"])
        return pandas.Series(values, dtype=values.dtype).array
    if "categories" in column:
        categories = _to_index(column["categories"], inner)
        return pandas.Categorical.from_codes(column["value"], categories=categories, ordered=column["ordered"])
    return pandas.array([inner(item) for item in column["value"]], dtype=column["dtype"])


def _to_index(told: Fields, inner: Inner) -> Any:
    pandas = _package("pandas")
    if told["kind"] == "MultiIndex":
        levels = [_to_index(level, inner) for level in told["value"]]
        return pandas.MultiIndex.from_arrays(levels, names=[level.name for level in levels])
    if told["kind"] == "RangeIndex":
        return pandas.RangeIndex(*told["value"], name=inner(told["name"]))
    made = pandas.Index(_to_values(told["value"], inner), name=inner(told["name"]))
    if "freq" in told:
        made.freq = told["freq"]
    return made


def _of_kind(kind: str) -> Callable[[Fields, Inner], Any]:
    return lambda envelope, inner: _to_index({"kind": kind, **envelope}, inner)


def _to_moment(cls: str) -> Callable[[Fields, Inner], Any]:
    def decode(envelope: Fields, inner: Inner) -> Any:
        pandas = _package("pandas")
        if envelope["value"] is None:
            return pandas.NaT
        made = getattr(pandas, cls)(inner(envelope["value"]), unit=envelope["unit"]).as_unit(envelope["unit"])
        return made.tz_localize("UTC").tz_convert(envelope["zone"]) if "zone" in envelope else made

    return decode


DECODERS: dict[str, Callable[[Fields, Inner], Any]] = {
    "ndarray": _to_array,
    "numpy": _to_scalar,
    "DataFrame": _to_frame,
    "Series": _to_series,
    "Index": _of_kind("Index"),
    "RangeIndex": _of_kind("RangeIndex"),
    "MultiIndex": _of_kind("MultiIndex"),
    "Timestamp": _to_moment("Timestamp"),
    "Timedelta": _to_moment("Timedelta"),
    "Period": lambda envelope, inner: _package("pandas").Period(ordinal=envelope["value"], freq=envelope["freq"]),
    "NA": lambda envelope, inner: _package("pandas").NA,
}

KINDS = frozenset(DECODERS)
