"""What a call leaves behind beside its result: artifacts."""

from __future__ import annotations

import mimetypes
import re

from flux.engine.run import Run
from flux.errors import TooLarge
from flux.messages import ToolCall
from flux.store import artifacts

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
        run, number = self._run, self._count
        self._count += 1
        id = artifacts.artifact_id(run.id, self._call.id, number)
        name = f"{_UNFIT.sub('_', self._call.name)[:64]}-{id[:8]}{mimetypes.guess_extension(media_type) or ''}"
        program = artifacts.put(run.scope, run.id, run.epoch, id, name=name, media_type=media_type, data=content)
        await run.database.write(program)
        self.last = id
        return f"{SCHEME}://{id}"
