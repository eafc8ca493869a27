"""Values as the log keeps them."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum
from types import SimpleNamespace
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, HttpUrl, PrivateAttr, RootModel

from flux.engine.encoding.classes import class_lookup
from flux.engine.encoding.values import decode_value, encode_value, json_value, readable
from flux.errors import MissingKey, UnknownException, ValueNotStorable


class Colour(Enum):
    RED = "red"
    BLUE = (1, 2)


class Level(IntEnum):
    LOW = 1


class Word(StrEnum):
    HELLO = "hello"


class Rights(Flag):
    READ = 1
    WRITE = 2


@dataclass
class Point:
    x: int
    y: Any = None
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Doubled:
    n: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", self.n * 2)


class Pair(NamedTuple):
    left: Any
    right: Any = 0


class Order(BaseModel):
    id: UUID
    lines: list[Point] = []
    due: date | None = None
    _seen: int = PrivateAttr(default=3)


class Open(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)

    a: int


class Link(BaseModel):
    to: HttpUrl


class Numbers(RootModel[list[int]]):
    pass


class Refused(Exception):
    def __init__(self, code: int, *, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


class Touchy(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def kept(value: Any) -> Any:
    """A value after its way through the log."""
    return decode_value(msgspec.json.decode(msgspec.json.encode(encode_value(value))))


def same(a: Any, b: Any) -> bool:
    """Equality that tells types and signs apart and finds NaN equal to itself."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return math.isnan(a) if math.isnan(b) else a == b and math.copysign(1, a) == math.copysign(1, b)
    if isinstance(a, dict):
        return len(a) == len(b) and all(
            same(k, m) and same(v, w) for (k, v), (m, w) in zip(a.items(), b.items(), strict=True)
        )
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return same(vars(a), vars(b)) if isinstance(a, Point) else bool(a == b)


any_text = st.text(st.characters(exclude_categories=[]))
zones = st.sampled_from([None, UTC, timezone(timedelta(hours=5, minutes=30)), ZoneInfo("Europe/Berlin")])
plain = st.none() | st.booleans() | st.integers() | st.floats() | any_text
typed = (
    st.binary()
    | st.binary().map(bytearray)
    | st.datetimes(timezones=zones, allow_imaginary=True)
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.sampled_from([*Colour, *Level, *Word, *Rights, Rights(0), Rights(3)])
)
hashable = st.integers() | any_text | st.dates() | st.tuples(st.integers(), any_text)
values = st.recursive(
    plain | typed,
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(any_text | st.just("$flux"), inner)
        | st.dictionaries(hashable, inner)
        | st.lists(inner).map(tuple)
        | st.sets(hashable)
        | st.frozensets(hashable)
        | st.builds(Point, x=inner, y=inner)
        | st.builds(Pair, inner, inner)
    ),
    max_leaves=20,
)


@pytest.mark.behaviour("values:round-trip:typed")
@given(values)
def test_every_value_comes_back(value: Any) -> None:
    assert same(kept(value), value)


@pytest.mark.behaviour("values:json:plain")
@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(), st.lists))
def test_plain_data_is_its_own_form(value: Any) -> None:
    assert encode_value({"a": value}) == {"a": value}
    assert json_value({"a": value}) == {"a": value}


@pytest.mark.behaviour("values:json:plain")
def test_a_value_is_a_copy() -> None:
    value = {"a": [1]}
    encoded = encode_value(value)
    decode_value(encoded)["a"].append(2)
    value["a"].append(3)
    assert encoded == {"a": [1]}


@pytest.mark.behaviour("values:round-trip:typed")
@pytest.mark.parametrize(
    "value",
    [
        {"$flux": "datetime", "value": "x"},
        {"$flux": {"$flux": 1}},
        {1: "a", None: "b", (1, 2): "c", "1": "d"},
        10**400,
        -(2**63) - 1,
        math.inf,
        "\ud800",
        {"\ud800": 1},
        datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
        time(2, 30, tzinfo=ZoneInfo("Europe/Berlin")),
        {frozenset({1, 2}): {3}},
        Decimal("1.10"),
        timedelta(microseconds=-1),
    ],
    ids=repr,
)
def test_odd_values_come_back(value: Any) -> None:
    back = kept(value)
    assert same(back, value)
    assert getattr(back, "fold", 0) == getattr(value, "fold", 0)
    assert getattr(back, "tzinfo", None) is getattr(value, "tzinfo", None)


@pytest.mark.behaviour("values:round-trip:typed")
def test_equal_sets_have_one_form() -> None:
    names = [f"name{n}" for n in range(50)]
    assert encode_value(set(names)) == encode_value(set(reversed(names)))


@pytest.mark.behaviour("values:round-trip:objects")
@pytest.mark.parametrize(
    "value",
    [
        Point(1, Point(2), ["a"]),
        Doubled(2),
        Order(id=UUID(int=1), lines=[Point(1, {3})], due=date(2026, 1, 2)),
        Open.model_validate({"a": 1, "more": [Decimal(2)]}),
        Numbers([1, 2]),
        Link(to=HttpUrl("https://a.example/ü?q=1")),
    ],
    ids=repr,
)
def test_objects_come_back(value: Any) -> None:
    back = kept(value)
    assert back == value
    assert type(back) is type(value)
    assert getattr(back, "model_fields_set", None) == getattr(value, "model_fields_set", None)


@pytest.mark.behaviour("values:round-trip:objects")
@pytest.mark.parametrize(
    "error",
    [
        ValueError("no", 3),
        KeyError("k"),
        FileNotFoundError(2, "No such file", "a.txt"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        Refused(4, reason="late"),
        MissingKey("no key", debug="where", provider="x"),
        ExceptionGroup("both", [ValueError(1), Refused(2, reason="b")]),
        Touchy(1),
        SystemExit(3),
    ],
    ids=lambda error: type(error).__name__,
)
def test_exceptions_come_back(error: BaseException) -> None:
    back = kept(error)
    assert type(back) is type(error)
    assert repr(back) == repr(error)
    assert {k: v for k, v in vars(back).items()} == vars(error)
    assert getattr(back, "filename", None) == getattr(error, "filename", None)


@pytest.mark.behaviour("values:round-trip:objects")
def test_an_exception_is_kept_whatever_it_holds() -> None:
    error = Refused(1, reason="x")
    error.args = (object(), 2)
    error.__dict__["request"] = object()
    error.__cause__ = ValueError("first")
    error.__cause__.__cause__ = error
    back = kept(error)
    assert type(back) is Refused
    assert vars(back) == {"code": 1, "reason": "x"}
    assert back.args[1] == 2
    assert repr(back.__cause__) == "ValueError('first')"


@pytest.mark.behaviour("values:round-trip:objects")
def test_an_exception_that_holds_itself_is_cut() -> None:
    error = ValueError()
    error.args = (error, error)
    error.__dict__["again"] = error
    error.__cause__ = error
    assert type(kept(error).__cause__.again) is ValueError


@pytest.mark.behaviour("values:decode:safe")
def test_unknown_classes_become_plain_data() -> None:
    @dataclass
    class Local:
        a: int

    class LocalError(Exception):
        pass

    back = kept(LocalError("why"))
    assert isinstance(back, UnknownException)
    assert str(back).endswith("LocalError: why")
    for name in ("nowhere:Point", "os:system", "builtins:print", f"{__name__}:Local", "os:path.join", "x:"):
        assert decode_value({"$flux": "dataclass", "class": name, "value": {"x": 1}}) == {"x": 1}
        assert decode_value({"$flux": "model", "class": name, "value": {"x": 1}, "set": []}) == {"x": 1}
        assert decode_value({"$flux": "enum", "class": name, "name": "A", "value": 1}) == 1
    with pytest.raises(ValueNotStorable, match="Local"):
        encode_value(Local(1))


@pytest.mark.behaviour("values:decode:safe")
def test_a_class_that_has_changed_is_met_with_its_defaults() -> None:
    told = {"$flux": "dataclass", "class": f"{__name__}:Point", "value": {"x": 1, "gone": 2}}
    assert decode_value(told) == Point(1)
    told = {"$flux": "model", "class": f"{__name__}:Order", "value": {"id": 1}, "set": ["id"]}
    assert decode_value(told).lines == []
    assert decode_value({"$flux": "enum", "class": f"{__name__}:Colour", "name": "GREEN", "value": "green"}) == "green"


@pytest.mark.behaviour("values:decode:looked-up")
def test_the_lookup_of_uploaded_sources_comes_first() -> None:
    source = SimpleNamespace(Point=type("Point", (), {}))
    exec("from dataclasses import dataclass\n@dataclass\nclass Point:\n    x: int = 0", vars(source))
    source.Point.__module__ = "flux_source.default.hello.v1"
    value = source.Point(3)
    encoded = encode_value(value)
    assert decode_value(encoded) == {"x": 3}
    token = class_lookup.set(lambda module, name: getattr(source, name) if module.endswith(".v1") else None)
    try:
        assert decode_value(encoded) == value
        assert kept(Point(1)) == Point(1)
    finally:
        class_lookup.reset(token)


@pytest.mark.behaviour("values:refused:named")
def test_what_cannot_be_kept_is_named() -> None:
    for value in (object(), lambda: 1, {"a": [open]}, Point(1, SimpleNamespace())):
        with pytest.raises(ValueNotStorable, match=r"type \S+\.\w+ cannot be kept .* output_storage=.*pickle"):
            encode_value(value)
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ValueNotStorable, match="inside itself"):
        encode_value(loop)


@pytest.mark.behaviour("values:readable:plain")
def test_values_are_shown_as_plain_json() -> None:
    value = {
        "when": datetime(2026, 1, 2, tzinfo=UTC),
        "took": timedelta(minutes=1),
        "price": Decimal("1.10"),
        "at": Point(1, (Colour.RED, {2})),
        "order": Open.model_validate({"a": 1, "more": b"x"}),
        "nan": math.nan,
        "big": 2**70,
        "error": ValueError("no"),
        "odd": {1: "a", "$flux": 2},
        "link": Link(to=HttpUrl("https://a.example/")),
        "foreign": SimpleNamespace(a=1),
    }
    assert json_value(value) == {
        "when": "2026-01-02T00:00:00+00:00",
        "took": 60.0,
        "price": "1.10",
        "at": {"x": 1, "y": ["red", [2]], "tags": []},
        "order": {"a": 1, "more": "eA=="},
        "nan": None,
        "big": str(2**70),
        "error": {"type": "ValueError", "message": "no"},
        "odd": {"1": "a", "$flux": 2},
        "link": {"to": "https://a.example/"},
        "foreign": "namespace(a=1)",
    }
    assert readable({"$flux": "dataclass", "class": "nowhere:Point", "value": {"x": 1}}) == {"x": 1}


@given(values)
@pytest.mark.behaviour("values:readable:plain")
def test_whatever_is_shown_is_json(value: Any) -> None:
    shown = json_value(value)
    assert shown == readable(encode_value(value))
    assert msgspec.json.decode(msgspec.json.encode(shown)) == shown


@pytest.mark.behaviour("values:import:lean")
def test_values_import_no_heavy_package() -> None:
    code = """
import sys
from flux.engine.encoding.values import encode_value, decode_value
decode_value(encode_value({"a": (1, {2}), "e": ValueError()}))
print({"pydantic", "numpy", "pandas"} & set(sys.modules))
"""
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"
