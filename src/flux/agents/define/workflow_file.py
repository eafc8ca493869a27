"""The workflow that an agent brings to talk with: read where the agent is created, kept in its definition."""

from __future__ import annotations

import hashlib
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from flux.engine.sources.catalog import Declaration, Source, read_source
from flux.errors import DefinitionInvalid, InvalidInput, TooLarge
from flux.store.workflows import AGENTS

BOM = "\ufeff"
#: As YAML and lists of fields have it: the path of a file, or what was read from it.
PATH_OR_FILE = {"anyOf": [{"type": "string"}, {"type": "object"}, {"type": "null"}]}


class WorkflowFile(BaseModel):
    """A file of Python: what it was called, its text, and the digest of that."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "workflow.py"
    digest: str
    source: str

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
