"""Output storage: where results go that are too large, or of the wrong kind, for the log."""

from __future__ import annotations

import asyncio
import hashlib
import os
import pickle
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import quote

import msgspec

from flux.engine.encoding.values import decode_value, encode_value, kept_elsewhere, reference_of
from flux.errors import InvalidInput, StoredValueNotFound
from flux.settings import load_settings

#: Longer names of files are not possible everywhere.
MAX_NAME = 200
Serializer = Literal["json", "pickle"]


@dataclass(frozen=True)
class OutputStorageReference:
    """Where a value is kept: this small thing stands for it in the log."""

    storage_type: str
    reference_id: str
    metadata: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The reference as plain data."""
        return {"storage_type": self.storage_type, "reference_id": self.reference_id, "metadata": self.metadata}

    @staticmethod
    def from_dict(data: dict[str, Any]) -> OutputStorageReference:
        """The reference of such data."""
        return OutputStorageReference(data["storage_type"], data["reference_id"], data.get("metadata") or {})


class OutputStorage(Protocol):
    """A place for results. Its methods may block; the engine calls them in a thread."""

    def store(self, reference_id: str, value: Any) -> OutputStorageReference:
        """Keep a value; the same id again replaces it. Durable when this returns."""
        ...

    def retrieve(self, reference: OutputStorageReference) -> Any:
        """The value.

        :raises StoredValueNotFound: it is gone
        """
        ...

    def delete(self, reference: OutputStorageReference) -> None:
        """Forget the value; one that is gone already is none to complain about."""
        ...


class InlineOutputStorage(OutputStorage):
    """Keeps the value in its reference, so in the log."""

    def store(self, reference_id: str, value: Any) -> OutputStorageReference:
        """A reference that holds the value."""
        return OutputStorageReference("inline", reference_id, {"value": value})

    def retrieve(self, reference: OutputStorageReference) -> Any:
        """The value."""
        return reference.metadata["value"]

    def delete(self, reference: OutputStorageReference) -> None:
        """Nothing to do."""


class LocalFileStorage(OutputStorage):
    """Keeps each value in a file of its own, in `base_path` (default: outputs in FLUX_HOME).

    Every worker must see the same folder. `serializer="pickle"` keeps whatever Python can pickle; reading a pickle
    runs code that is in it, so use it only where nobody else can write to the folder.
    """

    def __init__(self, base_path: str | Path | None = None, serializer: Serializer = "json") -> None:
        if serializer not in SERIALIZERS:
            raise InvalidInput(f"serializer: {serializer!r} is none; use 'json', or 'pickle' for what JSON cannot keep")
        self.serializer = serializer
        self._base_path = Path(base_path) if base_path is not None else None

    @property
    def base_path(self) -> Path:
        """The folder."""
        if self._base_path is None:
            self._base_path = load_settings().home / "outputs"
        return self._base_path

    def store(self, reference_id: str, value: Any) -> OutputStorageReference:
        """Write the value to its file.

        :raises ValueNotStorable: the serializer is "json", which has no form for it
        """
        reference = OutputStorageReference("local_file", reference_id, {"serializer": self.serializer})
        _write(self._path(reference), SERIALIZERS[self.serializer][0](value))
        return reference

    def retrieve(self, reference: OutputStorageReference) -> Any:
        """Read the value from its file.

        :raises StoredValueNotFound: the file is gone
        :raises InvalidInput: it is a pickle, and this storage was not told to read pickles
        """
        serializer = reference.metadata.get("serializer", "json")
        if serializer == "pickle" and self.serializer != "pickle":
            raise InvalidInput(
                f"the value {reference.reference_id!r} was pickled; only LocalFileStorage(serializer='pickle') reads it"
            )
        path = self._path(reference)
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise StoredValueNotFound(
                f"the stored value {reference.reference_id!r} is gone: there is no {path}; "
                "every worker must see the same folder"
            ) from error
        return SERIALIZERS[serializer][1](data)

    def delete(self, reference: OutputStorageReference) -> None:
        """Remove the file."""
        self._path(reference).unlink(missing_ok=True)

    def _path(self, reference: OutputStorageReference) -> Path:
        if reference.storage_type != "local_file":
            raise InvalidInput(f"a value of storage {reference.storage_type!r} is not in a local file")
        name = quote(reference.reference_id, safe=" ()[]=,@+")
        if len(name) > MAX_NAME:
            name = hashlib.sha256(reference.reference_id.encode()).hexdigest()
        return self.base_path / f"{name}.{reference.metadata.get('serializer', 'json')}"


async def store_output(storage: OutputStorage | None, reference_id: str, value: Any) -> Any:
    """The JSON-safe form of a result for the log: the value, or the reference to where `storage` keeps it.

    :raises ValueNotStorable: the value has no such form
    """
    if storage is None:
        return encode_value(value)
    reference = await asyncio.to_thread(storage.store, reference_id, value)
    return kept_elsewhere(reference.to_dict())


async def load_output(storage: OutputStorage | None, encoded: Any) -> Any:
    """The result that `store_output` made a form of.

    :raises StoredValueNotFound: it was kept elsewhere and is gone
    :raises InvalidInput: it was kept elsewhere, and no storage is given
    """
    reference = reference_of(encoded)
    if reference is not None and storage is None:
        raise InvalidInput(
            f"the value {reference['reference_id']!r} is in a storage of type {reference['storage_type']!r}: "
            "give the task the output_storage= it had when it ran"
        )
    return decode_value(encoded) if reference is None else await asyncio.to_thread(read_output, storage, encoded)


def read_output(storage: OutputStorage | None, encoded: Any) -> Any:
    """The same of a workflow's output, at once; without its storage, the reference as plain data.

    :raises StoredValueNotFound: it was kept elsewhere and is gone
    """
    reference = reference_of(encoded)
    if reference is None or storage is None:
        return decode_value(encoded)
    return storage.retrieve(OutputStorageReference.from_dict(reference))


def _write(path: Path, data: bytes) -> None:
    """All or nothing, and durable."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    half = path.with_name(f".{uuid.uuid4().hex}")
    try:
        with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _to_json(value: Any) -> bytes:
    return msgspec.json.encode(encode_value(value))


def _from_json(data: bytes) -> Any:
    return decode_value(msgspec.json.decode(data))


def _from_pickle(data: bytes) -> Any:
    return pickle.loads(data)  # noqa: S301 - asked for by name


SERIALIZERS: dict[str, tuple[Callable[[Any], bytes], Callable[[bytes], Any]]] = {
    "json": (_to_json, _from_json),
    "pickle": (pickle.dumps, _from_pickle),
}
