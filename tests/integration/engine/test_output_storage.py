"""Results that are kept outside the log."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flux.engine.encoding.values import json_value, readable
from flux.engine.workflows.storage import load_output, store_output
from flux.errors import InvalidInput, StoredValueNotFound, ValueNotStorable
from flux.output_storage import InlineOutputStorage, LocalFileStorage, OutputStorage, OutputStorageReference

VALUE = {"price": Decimal("1.10"), "tags": {"a"}}


class Lockers(OutputStorage):
    """A storage of a user."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}

    def store(self, reference_id: str, value: Any) -> OutputStorageReference:
        self.kept[reference_id] = value
        return OutputStorageReference("lockers", reference_id)

    def retrieve(self, reference: OutputStorageReference) -> Any:
        return self.kept[reference.reference_id]

    def delete(self, reference: OutputStorageReference) -> None:
        self.kept.pop(reference.reference_id, None)


def logged(encoded: Any) -> Any:
    """The form of a value after its way through the log."""
    return msgspec.json.decode(msgspec.json.encode(encoded))


@pytest.mark.behaviour("storage:round-trip:kept")
async def test_every_storage_gives_back_what_it_was_given(tmp_path: Path) -> None:
    storages = (
        None,
        InlineOutputStorage(),
        LocalFileStorage(tmp_path),
        LocalFileStorage(tmp_path, "pickle"),
        Lockers(),
    )
    for storage in storages:
        encoded = logged(await store_output(storage, "x/task(1)", VALUE))
        assert await load_output(storage, encoded) == VALUE


@pytest.mark.behaviour("storage:log:reference")
async def test_only_a_reference_goes_into_the_log(tmp_path: Path) -> None:
    large = "x" * 1_000_000
    encoded = await store_output(LocalFileStorage(tmp_path), "large", large)
    assert len(msgspec.json.encode(encoded)) < 300
    assert readable(encoded)["reference_id"] == "large"
    with pytest.raises(InvalidInput, match=r"local_file.*output_storage="):
        await load_output(None, encoded)
    assert json_value({"$flux": "stored", "value": 1}) == {"$flux": "stored", "value": 1}


@pytest.mark.behaviour("storage:files:safe")
async def test_no_id_leaves_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "outputs"
    storage = LocalFileStorage(folder)
    ids = ["../../etc/passwd", "/absolute", ".", "..", "", "a\0b", "long" * 200, "ü" * 100]
    references = [storage.store(id, id) for id in ids]
    assert [storage.retrieve(reference) for reference in references] == ids
    assert len(list(folder.iterdir())) == len(ids)
    assert list(tmp_path.iterdir()) == [folder]
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}


@pytest.mark.behaviour("storage:files:safe")
async def test_a_value_that_is_gone_is_named(tmp_path: Path) -> None:
    storage = LocalFileStorage(tmp_path)
    reference = storage.store("one", 1)
    storage.delete(reference)
    storage.delete(reference)
    with pytest.raises(StoredValueNotFound, match="'one' is gone"):
        storage.retrieve(reference)
    with pytest.raises(InvalidInput, match="'s3'"):
        storage.retrieve(OutputStorageReference("s3", "one"))


@pytest.mark.behaviour("storage:pickle:asked-for")
async def test_pickles_are_written_and_read_only_where_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueNotStorable, match="pickle"):
        LocalFileStorage(tmp_path).store("it", 1j)
    pickled = LocalFileStorage(tmp_path, serializer="pickle").store("it", 1j)
    assert LocalFileStorage(tmp_path, serializer="pickle").retrieve(pickled) == 1j
    with pytest.raises(InvalidInput, match="serializer='pickle'"):
        LocalFileStorage(tmp_path).retrieve(pickled)
    with pytest.raises(InvalidInput, match="'dill' is none"):
        LocalFileStorage(tmp_path, serializer="dill")  # type: ignore[arg-type]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.behaviour("storage:files:home")
async def test_files_are_kept_in_the_home_unless_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUX_HOME", str(tmp_path / "home"))
    LocalFileStorage().store("one", 1)
    assert [path.name for path in (tmp_path / "home" / "outputs").iterdir()] == ["one.json"]
