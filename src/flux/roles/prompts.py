"""Prompts in layers: what is stable comes first, so that a provider finds the beginning in its cache."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from flux.errors import DefinitionInvalid


class LayeredPrompt(Struct, frozen=True):
    """Named layers in their order. `layered_prompt` makes it."""

    layers: tuple[tuple[str, str], ...]

    @property
    def text(self) -> str:
        """The whole prompt."""
        return "\n\n".join(text for _, text in self.layers)

    @property
    def cache_key(self) -> str:
        """The same for the same layers, in every process; it goes to the provider's prompt cache."""
        return "flux-" + hashlib.sha256(msgspec.json.encode(self.layers)).hexdigest()[:32]


def layered_prompt(layers: Iterable[Sequence[str]]) -> LayeredPrompt:
    """A prompt of `(name, text)` pairs; put the stable ones first.

    :raises DefinitionInvalid: a layer is no such pair, is empty, or has the name of another one
    """
    found: dict[str, str] = {}
    for layer in layers:
        name, text = _pair(layer)
        if name in found:
            raise DefinitionInvalid(f"prompt: two layers are called {name!r}", field="prompt")
        found[name] = text
    if not found:
        raise DefinitionInvalid("prompt: a layered prompt needs at least one layer", field="prompt")
    return LayeredPrompt(tuple(found.items()))


def prompt_of(given: Any, what: str) -> LayeredPrompt | str:
    """A prompt of what somebody wrote.

    :raises DefinitionInvalid: it is none
    """
    if isinstance(given, LayeredPrompt) or (isinstance(given, str) and given.strip()):
        return given
    problem = "is empty" if isinstance(given, str) else f"must be text or layered_prompt([…]), not {_kind(given)}"
    raise DefinitionInvalid(f"{what}: prompt {problem}", field="prompt")


def _pair(layer: Any) -> tuple[str, str]:
    if isinstance(layer, str) or not isinstance(layer, Sequence) or len(layer) != 2:
        raise DefinitionInvalid(f"prompt: a layer is a pair of name and text, not {layer!r:.80}", field="prompt")
    name, text = layer
    if not isinstance(name, str) or not name.strip() or not isinstance(text, str) or not text.strip():
        raise DefinitionInvalid(f"prompt: the layer {name!r:.80} needs a name and a text", field="prompt")
    return name, text


def _kind(given: Any) -> str:
    return type(given).__name__
