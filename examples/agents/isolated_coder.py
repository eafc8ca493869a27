"""A coding agent in an isolated sandbox: it mends a small project until its tests pass, and asks for nothing.

    python examples/agents/isolated_coder.py [FOLDER]
    FLUX_MODEL=anthropic/claude-sonnet-5-5 python examples/agents/isolated_coder.py

It can write the folder and read the system's programs and this Python. Nothing else of this machine is there for its
commands, and no network.
"""

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from flux import create_agent, init_agent
from flux.errors import SandboxUnavailable, Unavailable
from flux.sandboxes import Limits, isolated

MODEL = os.environ.get("FLUX_MODEL", "scripted/examples/agents/scripts/isolated_coder.yaml")

MEDIAN = """\
def median(values):
    ordered = values
    return ordered[len(ordered) // 2]
"""

TESTS = """\
import unittest

from median import median


class Median(unittest.TestCase):
    def test_the_middle(self):
        self.assertEqual(median([3, 1, 2]), 2)
"""

RUN = f"""\
#!/bin/sh
exec {sys.executable} -m unittest -q
"""


def project(folder: Path) -> None:
    """A project with a bug."""
    for name, text in (("median.py", MEDIAN), ("test_median.py", TESTS), ("run-tests", RUN)):
        (folder / name).write_text(text)
    (folder / "run-tests").chmod(0o755)


async def main(folder: Path) -> None:
    """Have it mended."""
    project(folder)
    sandbox = isolated(folder, limits=Limits(memory=1_000_000_000), readable={sys.prefix, sys.base_prefix})
    agent = create_agent(
        lambda: {
            "model": MODEL,
            "instructions": "You mend code. Run ./run-tests before and after a change. Be brief.",
            "sandbox": sandbox,
        },
        name="isolated-coder",
    )
    harness = await init_agent(agent, id=folder.name)
    session = await harness.session()
    print((await session.prompt("The tests fail. Mend median.py.")).text)
    done = await harness.shell("./run-tests")
    print("the tests pass" if done.exit_code == 0 else done.stderr)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        try:
            asyncio.run(main(Path(sys.argv[1] if len(sys.argv) > 1 else made)))
        except (SandboxUnavailable, Unavailable) as error:
            sys.exit(str(error))
