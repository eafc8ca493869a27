"""What is known of models beforehand: windows, output limits, prices, and successors of retired ones."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from genai_prices import Usage as PricedUsage
from genai_prices import calc_price
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelPrice
from pydantic_ai.models import known_model_names

from flux.messages import Costs, Usage

_PRICED = {"openai-chat": "openai"}
_OUTPUT = (
    (re.compile(r"gpt-[5-9]"), 128_000),
    (re.compile(r"o[134](-|$)"), 100_000),
    (re.compile(r"gpt-4\.1"), 32_768),
    (re.compile(r"gpt-4o"), 16_384),
    (re.compile(r"gemini-(2\.5|[3-9])"), 65_535),
    (re.compile(r"gemini-2\.0"), 8_192),
)


def context_window(provider: str, model: str) -> int | None:
    """Tokens that fit the context window; None when unknown."""
    try:
        _, found = get_snapshot().find_provider_model(model, None, _PRICED.get(provider, provider), None)
    except LookupError:
        return None
    return found.context_window


def output_limit(model: str) -> int | None:
    """The most tokens an answer may have, thinking included; None when unknown."""
    return next((limit for family, limit in _OUTPUT if family.match(model)), None)


def costs(provider: str, model: str, usage: Usage) -> Costs | None:
    """The price in US dollars, by its parts; None when unknown."""
    counted = PricedUsage(
        input_tokens=usage.input,
        output_tokens=usage.output,
        cache_read_tokens=usage.cache_read,
        cache_write_tokens=usage.cache_write,
    )
    try:
        price = calc_price(counted, model, provider_id=_PRICED.get(provider, provider))
        read, write = (_part(price.model_price, one, counted) for one in ("cache_read_mtok", "cache_write_mtok"))
    except (LookupError, ValueError):
        return None
    output = price.total_price - price.input_price
    return Costs(float(price.input_price - read - write), float(output), float(read), float(write))


def _part(price: ModelPrice, of: str, counted: PricedUsage) -> Decimal:
    """What tokens of a price of their own cost; nothing where they are priced like all others."""
    prices = {key: value for key, value in vars(price).items() if not key.startswith("_")}
    if prices.get(of) is None:
        return Decimal(0)
    without = ModelPrice(**prices | {of: Decimal(0)})
    return price.calc_price(counted)["total_price"] - without.calc_price(counted)["total_price"]


def replacement(provider: str, model: str) -> str | None:
    """A model the provider serves today in place of `model`; None when none is alike."""
    prefix = f"{_PRICED.get(provider, provider)}:"
    served = [name.removeprefix(prefix) for name in known_model_names() if name.startswith(prefix)]
    words = _words(model)
    alike = [name for name in served if name != model and words & _words(name)]
    return max(alike, key=lambda name: _likeness(words, name), default=None)


def _likeness(words: set[str], name: str) -> tuple[Any, ...]:
    """Orders successors: most words shared, fewest others, newest."""
    own = _words(name)
    return len(words & own), -len(own - words), [int(part) for part in re.findall(r"\d+", name)], name


def _words(model: str) -> set[str]:
    return set(re.findall(r"[a-z]+", model.lower()))
