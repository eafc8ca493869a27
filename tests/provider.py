"""A real identity provider on loopback (npm oidc-provider), and a person with a browser who logs in there."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from urllib.parse import urljoin

import httpx

from tests.conftest import NODE_PROGRAMS

SCRIPT = Path(__file__).with_suffix(".mjs")
PACKAGES = NODE_PROGRAMS.parents[1] / "package.json"
AUDIENCE = "https://flux.example/api"
CLIENT = "flux"
FORM = re.compile(r'<form[^>]*action="([^"]*)".*?</form>', re.S)
INPUT = re.compile(r'<input[^>]*name="(\w+)"[^>]*?value="([^"]*)"')


@contextmanager
def identity_provider(node: str, *, lifetime: int = 300) -> Iterator[str]:
    """The issuer; its tokens are good for `lifetime` seconds."""
    command = [node, str(SCRIPT), str(PACKAGES), AUDIENCE, str(lifetime)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


async def visit(url: str) -> str:
    """Do what a person does with a browser: open the address, submit each form; the text of the last page."""
    async with httpx.AsyncClient(trust_env=False, follow_redirects=True, timeout=10) as browser:
        page = await browser.get(url)
        while form := FORM.search(page.text):
            fields = {name: unescape(value) for name, value in INPUT.findall(form[0])}
            page = await browser.post(urljoin(str(page.url), unescape(form[1])), data={**fields, "confirm": "yes"})
        return page.text
