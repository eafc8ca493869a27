"""Fetch pages of the web as Markdown."""

from __future__ import annotations

import asyncio
import codecs
import importlib
import re
import ssl
import zlib
from collections.abc import Iterable
from typing import Any

import httpx
from msgspec import Struct

from flux.tools.addresses import NotAllowed, address_of
from flux.tools.base import Done, Failed, Tool, ToolContext, ToolOutcome
from flux.tools.function import tool_of

MAX_BYTES = 5_000_000
"""Bytes of a page that are read."""

SECONDS = 30.0
"""What a page may take, redirects included."""

MAX_REDIRECTS = 5

_HEADERS = {
    "User-Agent": "flux-harness (web_fetch)",
    "Accept": "text/html,application/xhtml+xml,text/*;q=0.9,application/json;q=0.9,*/*;q=0.1",
    "Accept-Encoding": "gzip",
}
_HTML = frozenset({"text/html", "application/xhtml+xml"})
_TEXTS = re.compile(r"text/.*|application/((.*\+)?(json|xml|yaml)|javascript|x-ndjson|toml)")
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?([\w-]+)", re.IGNORECASE)


class Page(Struct, frozen=True):
    """What came: from which address, of what type, and whether all of it was read."""

    url: str
    status: int
    type: str
    charset: str
    data: bytes
    whole: bool


class WebFetch:
    """web_fetch. `hosts` are names, with or without a port, that may be fetched from although they are not public."""

    def __init__(self, hosts: Iterable[str] = (), *, trust: ssl.SSLContext | None = None) -> None:
        self._hosts = frozenset(host.lower() for host in hosts)
        self._trust = trust

    def tool(self) -> Tool:
        """The tool."""
        return tool_of(self.web_fetch, effect="read", timeout=SECONDS + 15)

    async def web_fetch(self, context: ToolContext, url: str) -> ToolOutcome:
        """Fetch a page of the web; HTML is given as Markdown, other text as it is.

        Args:
            url: The address, beginning with https:// or http://.
        """
        try:
            async with asyncio.timeout(SECONDS):
                page = await self._fetch(url)
        except TimeoutError:
            return Failed(f"{url[:200]}: not there after {SECONDS:g} seconds", timeout=True)
        except (NotAllowed, OSError, httpx.HTTPError, httpx.InvalidURL, UnicodeError, zlib.error) as error:
            return Failed(f"{url[:200]}: {_reason(error)}")
        if page.status >= 400:
            return Failed(f"{page.url}: the server answered {page.status} {httpx.codes.get_reason_phrase(page.status)}")
        return await _shown(page)

    async def _fetch(self, url: str) -> Page:
        if self._trust is None:
            self._trust = await asyncio.to_thread(httpx.create_ssl_context)
        wanted = httpx.URL(url.strip())
        async with httpx.AsyncClient(verify=self._trust, trust_env=False, timeout=SECONDS) as client:
            for _ in range(MAX_REDIRECTS + 1):
                page, onward = await self._get(client, wanted)
                if onward is None:
                    return page
                wanted = wanted.join(onward)
        raise NotAllowed(f"it was redirected more than {MAX_REDIRECTS} times")

    async def _get(self, client: httpx.AsyncClient, url: httpx.URL) -> tuple[Page, str | None]:
        """One request to the very address that was looked at; what came, and where it leads."""
        if url.scheme not in ("http", "https") or not url.host:
            raise NotAllowed("only addresses that begin with https:// or http:// are fetched")
        if url.userinfo:
            raise NotAllowed("an address with a user name in it is not fetched")
        host = url.raw_host.decode("ascii")
        port = url.port or (443 if url.scheme == "https" else 80)
        if port > 65_535:
            raise NotAllowed(f"there is no port {port}")
        address = await address_of(host, port, self._hosts)
        request = client.build_request(
            "GET",
            url.copy_with(host=address),
            headers={**_HEADERS, "Host": url.netloc.decode("ascii")},
            extensions={"sni_hostname": host},
        )
        response = await client.send(request, stream=True)
        client.cookies.clear()
        try:
            if response.has_redirect_location:
                return _page(url, response, b"", True), response.headers["location"]
            data, whole = await _body(response)
            return _page(url, response, data, whole), None
        finally:
            await response.aclose()


def _page(url: httpx.URL, response: httpx.Response, data: bytes, whole: bool) -> Page:
    type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    return Page(str(url), response.status_code, type, response.charset_encoding or "", data, whole)


async def _body(response: httpx.Response) -> tuple[bytes, bool]:
    """At most MAX_BYTES of what a response holds when it is unpacked, and whether that is all."""
    packing = response.headers.get("content-encoding", "identity").strip().lower()
    if packing not in ("identity", "", "gzip", "x-gzip"):
        raise NotAllowed(f"the server packed it as {packing[:40]}, which was not asked for")
    unpack = zlib.decompressobj(zlib.MAX_WBITS | 16) if packing.endswith("gzip") else None
    data = bytearray()
    async for piece in response.aiter_raw():
        data += unpack.decompress(piece, MAX_BYTES + 1 - len(data)) if unpack else piece
        if len(data) > MAX_BYTES:
            return bytes(data[:MAX_BYTES]), False
    return bytes(data), True


async def _shown(page: Page) -> ToolOutcome:
    if page.type and page.type not in _HTML and not _TEXTS.fullmatch(page.type):
        return Failed(f"{page.url} is {page.type} of {len(page.data):,} bytes, which is no text; it is not shown")
    text = _decoded(page)
    if page.type in _HTML:
        text = await asyncio.to_thread(_markdown, text, page.url)
    note = "" if page.whole else f"\n[only the first {MAX_BYTES:,} bytes were read]"
    return Done(f"{page.url}\n\n{text.strip() or '(the page has no text)'}{note}")


def _decoded(page: Page) -> str:
    said = _CHARSET.search(page.data[:2048]) if page.type in _HTML and not page.charset else None
    name = page.charset or (said[1].decode() if said else "utf-8-sig")
    try:
        if codecs.lookup(name).name.startswith("utf-8"):
            name = "utf-8-sig"
        return page.data.decode(name, "replace")
    except (LookupError, ValueError):  # an unknown charset, or none for text
        return page.data.decode("utf-8-sig", "replace")


def _markdown(html: str, url: str) -> str:
    # Asked for where it is needed: it takes long to load.
    library: Any = importlib.import_module("html_to_markdown")
    options = library.ConversionOptions(base_url=url, inline_data_media="drop_element")
    try:
        return str(library.convert(html, options).content or "")
    except library.ConversionError as error:
        return f"(the page cannot be shown: {error})"


def _reason(error: Exception) -> str:
    text = " ".join(str(getattr(error, "strerror", None) or error).split())
    return text or type(error).__name__
