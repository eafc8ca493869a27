"""The workflow that an agent brings to talk with: read where the agent is created, kept in its definition."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from flux.engine.catalog import MAX_SOURCE_BYTES, Declaration, Source, read_source
from flux.errors import DefinitionInvalid, InvalidInput, TooLarge
from flux.store.workflows import AGENTS

BOM = "\ufeff"


class WorkflowFile(BaseModel):
    """A file of Python: what it was called, its text, and the digest of that."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "workflow.py"
    source: str
    digest: str

    @model_validator(mode="before")
    @classmethod
    def _with_digest(cls, given: Any) -> Any:
        if isinstance(given, str):
            raise ValueError("a path is read where `flux agent create` runs; over HTTP send {name, source}")
        if not isinstance(given, dict) or not isinstance(given.get("source"), str):
            return given
        source = given["source"].removeprefix(BOM)
        digest = hashlib.sha256(source.encode(errors="surrogatepass")).hexdigest()[:32]
        if given.get("digest", digest) != digest:
            raise ValueError("the digest is not that of the source; leave it out")
        return given | {"source": source, "digest": digest}


def inline(fields: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The fields of an agent with its workflow file read; its path is relative to `folder`.

    :raises DefinitionInvalid: the file cannot be read
    """
    given = fields.get("workflow_file")
    if not isinstance(given, str) or not given:
        return fields
    path = folder / Path(given).expanduser()
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SOURCE_BYTES + 1)
        if len(data) > MAX_SOURCE_BYTES:
            raise DefinitionInvalid(f"workflow_file: {path} has more than {MAX_SOURCE_BYTES:,} bytes")
        source = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DefinitionInvalid(f"workflow_file: {path} is not UTF-8 text") from error
    except (OSError, ValueError) as error:
        raise DefinitionInvalid(f"workflow_file: {path}: {getattr(error, 'strerror', None) or error}") from error
    return fields | {"workflow_file": {"name": path.name, "source": source}}


def conversation_of(file: WorkflowFile) -> tuple[Source, Declaration]:
    """The file as it is registered, and the workflow in it that talks; nothing of it is run.

    :raises DefinitionInvalid: it cannot be registered, or does not say which workflow that is
    """
    try:
        source = read_source(file.source.encode())
    except UnicodeEncodeError as error:
        raise DefinitionInvalid(f"workflow_file: {file.name} is not Unicode text") from error
    except (InvalidInput, TooLarge) as error:
        raise DefinitionInvalid(f"workflow_file: {file.name}: {error}") from error
    found = [one for one in source.workflows if one.namespace == AGENTS] or list(source.workflows)
    if len(found) > 1:
        names = ", ".join(f"{one.namespace}/{one.name}" for one in found)
        raise DefinitionInvalid(
            f"workflow_file: {file.name} declares {names}; put the one that talks into the namespace {AGENTS!r}"
        )
    return source, found[0]
