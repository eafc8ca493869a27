"""The models that come with Flux: `scripted/NAME`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flux.errors import DefinitionInvalid
from flux.models.base import Model, ModelRequest
from flux.models.script_file import SUFFIXES, script_of
from flux.models.scripted import ScriptedModel, Turn, demo, echo
from flux.suggest import unknown


def scripted(name: str, folder: Path | None = None) -> Model:
    """The model `scripted/NAME`: a bundled one, or a script in a YAML file of a folder (None: the current one).

    :raises DefinitionInvalid: there is none of this name
    """
    scripts: dict[str, Callable[[ModelRequest], Turn]] = {"demo": demo, "echo": echo}
    if name.endswith(SUFFIXES):
        scripts[name] = script_of(folder or Path.cwd(), name)
    if name not in scripts:
        raise DefinitionInvalid(unknown("scripted model", name, scripts))
    delay = 0.02 if name == "demo" else 0.0
    return ScriptedModel(scripts[name], name=f"scripted/{name}", delay=delay, remember=0)


def scripted_in(folder: Path) -> Callable[[str], Model]:
    """Makes `scripted/NAME`; whoever names a script, over HTTP too, names a file of this folder."""
    return lambda name: scripted(name, folder)
