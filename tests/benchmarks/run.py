"""Measure and print one table: `./dev bench [NAME ...] [--long] [--json PATH]`. Slowness never fails."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # not this directory, whose modules are named like packages

from tests.benchmarks import frame  # noqa: E402

NAMES = (
    "turn",
    "many",
    "api",
    "web",
    "auth",
    "openai",
    "long",
    "idle",
    "sleepers",
    "readers",
    "cold",
    "commit",
    "workflows",
    "agents",
    "instances",
    "recall",
    "failover",
    "mcp",
    "sandboxes",
    "scale",
)
RESULTS = Path(__file__).parent / "results"


def measure(name: str, size: frame.Size) -> list[frame.Row]:
    """The rows of one benchmark."""
    with tempfile.TemporaryDirectory(prefix="flux-bench-") as folder:
        rows: list[frame.Row] = asyncio.run(
            importlib.import_module(f"tests.benchmarks.{name}").measure(size, Path(folder))
        )
    return rows


def main(argv: list[str]) -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(prog="./dev bench", description="Measure, and print one table.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these, of: {', '.join(NAMES)}")
    parser.add_argument("--long", action="store_true", help="more samples")
    parser.add_argument("--json", type=Path, metavar="PATH", help="where to write the figures")
    options = parser.parse_args(argv)
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are: {', '.join(NAMES)}")
    groups: dict[str, list[frame.Row]] = {}
    for name in options.names or NAMES:
        print(f"measuring {name} ...", end="", file=sys.stderr, flush=True)
        began = time.perf_counter()
        groups[name] = measure(name, frame.LONG if options.long else frame.QUICK)
        print(f" {time.perf_counter() - began:.0f} s", file=sys.stderr)
    print(frame.table(groups))
    path = options.json or RESULTS / "latest.json"
    frame.save(path, groups)
    if options.json is None:
        (RESULTS / ".gitignore").write_text("*\n")
    print(f"\n{path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
