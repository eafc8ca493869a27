"""What a worker says it has."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from flux.engine.dispatching.pools import ResourceRequest, Resources, resources_here


@pytest.fixture
def only_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of programs and packages: there are no others."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.path", [str(tmp_path), str(tmp_path / "nowhere"), str(tmp_path / "some.zip")])
    resources_here.cache_clear()
    yield tmp_path
    resources_here.cache_clear()


def driver(folder: Path, script: str) -> None:
    """A program of the driver that does this."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


@pytest.mark.behaviour("scale:pools:resources")
@pytest.mark.parametrize(
    ("script", "gpus"),
    [
        ("echo 'GPU 0: H100 (UUID: GPU-1)'; echo 'GPU 1: H100 (UUID: GPU-2)'", 2),
        ("echo 'No devices were found'; exit 6", 0),
        ("kill -9 $$", 0),
    ],
)
def test_graphics_cards_are_counted_where_the_driver_tells_of_them(only_here: Path, script: str, gpus: int) -> None:
    driver(only_here, script)
    assert resources_here().gpu == gpus


@pytest.mark.behaviour("scale:pools:resources")
def test_without_a_driver_there_are_no_graphics_cards(only_here: Path) -> None:
    has = resources_here()
    assert (has.gpu, has.packages) == (0, frozenset())
    assert has.cpu >= 1


@pytest.mark.behaviour("scale:pools:resources")
def test_packages_are_found_by_any_spelling_of_their_names(only_here: Path) -> None:
    for name in ("Pillow-11.0.dist-info", "ruamel.yaml-0.18.egg-info", "typing_extensions-4.1.dist-info", "pandas"):
        (only_here / name).mkdir()
    has = resources_here()
    assert has.packages == {"pillow", "ruamel-yaml", "typing-extensions"}
    for name in ("pillow", "Ruamel.YAML", "typing_extensions", "typing-extensions"):
        assert ResourceRequest(packages=(name,)).satisfied_by(has)
    assert not ResourceRequest(packages=("pandas",)).satisfied_by(has)
    assert not ResourceRequest(gpu=1).satisfied_by(Resources())
