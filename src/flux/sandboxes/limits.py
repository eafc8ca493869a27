"""What a command in an isolated sandbox may use."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

Bytes = Annotated[int, Meta(ge=16_000_000)]


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of one command; sizes in bytes.

    `memory` is the address space of each process, `file` the size of the largest file, `temporary` that of /tmp
    and of /dev/shm. `processes` counts threads too. It holds for workers that are not root, on Linux 5.14 and later.
    """

    memory: Bytes = 4_000_000_000
    processes: Annotated[int, Meta(ge=8)] = 256
    open_files: Annotated[int, Meta(ge=32)] = 1024
    file: Bytes = 1_000_000_000
    temporary: Bytes = 256_000_000
