"""What a call leaves behind beside its result: artifacts."""

from __future__ import annotations

import mimetypes
import re

from flux.engine.running.run import Run
from flux.errors import TooLarge
from flux.events import ToolDone
from flux.messages import ToolCall
from flux.store import artifacts
from flux.tools.references import SECLUDED
from flux.tools.text import clip

#: Bytes of the largest artifact.
MAX_ARTIFACT = 50_000_000
SCHEME = "artifact"
ANY = "application/octet-stream"

_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}/[a-z0-9][a-z0-9.+-]{0,126}")
_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")


class Keeper:
    """Keeps the artifacts of one call. `last` is the id of the newest one.

    They are numbered, so a call that is made again after a crash replaces what it had kept.
    """

    def __init__(self, run: Run, call: ToolCall) -> None:
        self.last: str | None = None
        self._run = run
        self._call = call
        self._count = 0

    async def keep(self, content: bytes, media_type: str) -> str:
        """Keep bytes; their address, `artifact://ID`.

        :raises TooLarge: there are too many of them
        :raises Fenced: another worker owns the execution now
        """
        if len(content) > MAX_ARTIFACT:
            raise TooLarge(f"an artifact may have {MAX_ARTIFACT:,} bytes, this one has {len(content):,}")
        media_type = media_type.partition(";")[0].strip().lower()
        media_type = media_type if _MEDIA_TYPE.fullmatch(media_type) else ANY
        id = artifacts.artifact_id(self._run.id, self._call.id, self._count)
        self._count += 1
        await _put(self._run, id, self._call.name, media_type, content)
        if not media_type.startswith(SECLUDED):
            self.last = id
        return f"{SCHEME}://{id}"

    async def recall(self, id: str) -> tuple[str, bytes]:
        """The media type and the bytes of what the session, or one of its family, has kept.

        :raises FileNotFoundError: there is no such thing
        """
        found = await self._run.database.scan(artifacts.read_in_tree(self._run.scope, self._run.id, id))
        if found is None:
            raise FileNotFoundError(id)
        return found


async def spill(run: Run, done: ToolDone, shown: int) -> str:
    """Keep a result that is too long to stay in the prompt; about `shown` characters of it, and how to read on.

    :raises Fenced: another worker owns the execution now
    """
    id = artifacts.artifact_id(run.id, f"{done.call}/spilled", 0)
    await _put(run, id, done.name, "text/plain", done.content.encode("utf-8", "replace"))
    return f'{clip(done.content, shown)}\n[the whole is kept; read on with read_file("{SCHEME}://{id}")]'


async def _put(run: Run, id: str, tool: str, media_type: str, content: bytes) -> None:
    name = f"{_UNFIT.sub('_', tool)[:64]}-{id[:8]}{mimetypes.guess_extension(media_type) or ''}"
    program = artifacts.put(run.scope, run.id, run.epoch, id, name=name, media_type=media_type, data=content)
    await run.database.write(program)
