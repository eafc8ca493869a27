"""web_fetch against a server on loopback, which it reaches only because it is named."""

import asyncio
import datetime
import gzip
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from flux.sandboxes.host import LocalSandbox
from flux.settings import Settings, load_settings
from flux.tools import web
from flux.tools.addresses import is_public
from flux.tools.base import Done, Failed, ToolContext
from flux.tools.web import WebFetch

HTML = (
    "<html><head><title>Prices</title><script>alert(1)</script></head><body><h1>Tea</h1>"
    '<p>Costs <b>3</b>, <a href="/more">more</a>.</p><ul><li>green</li><li>black</li></ul></body></html>'
)


class Web:
    """A server that answers each path with what was put there, and notes what it was asked."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.port = 0
        self.hold = asyncio.Event()

    def page(self, path: str, body: bytes | str, *headers: str, status: str = "200 OK") -> None:
        data = body if isinstance(body, bytes) else body.encode()
        head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(data)}", "Connection: close", *headers])
        self.pages[path] = f"{head}\r\n\r\n".encode() + data

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(head)
        path = head.split(" ")[1]
        if path == "/hang":
            await self.hold.wait()
        writer.write(self.pages.get(path, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"))
        writer.close()

    @property
    def host(self) -> str:
        return f"localhost:{self.port}"

    def url(self, path: str) -> str:
        return f"http://{self.host}{path}"


@pytest.fixture
async def server() -> AsyncIterator[Web]:
    web = Web()
    listening = await asyncio.start_server(web.answer, "127.0.0.1", 0)
    web.port = listening.sockets[0].getsockname()[1]
    yield web
    web.hold.set()
    listening.close()


async def fetch(url: str, *hosts: str, **more: Any) -> Done | Failed:
    context = ToolContext("s", "c", LocalSandbox(Path.cwd(), {}), output=print)
    outcome = await WebFetch(hosts, **more).tool().run({"url": url}, context)
    assert isinstance(outcome, Done | Failed)
    return outcome


@pytest.mark.behaviour("tools:web:markdown")
async def test_html_becomes_markdown_and_other_text_stays(server: Web) -> None:
    server.page("/a", HTML, "Content-Type: text/html")
    server.page("/b", '{"tea": 3}', "Content-Type: application/json")
    server.page("/c", "größe".encode("latin-1"), "Content-Type: text/plain; charset=latin-1")
    server.page("/d", '<meta charset="latin-1"><p>größe'.encode("latin-1"), "Content-Type: text/html")
    server.page("/e", gzip.compress(b"packed"), "Content-Type: text/plain", "Content-Encoding: gzip")
    server.page("/f", "", "Content-Type: text/html")
    shown = await fetch(server.url("/a"), "localhost")
    assert isinstance(shown, Done)
    assert shown.content.startswith(server.url("/a") + "\n\n")
    for part in ("Prices", "# Tea", f"Costs **3**, [more]({server.url('/more')}).", "- green\n- black"):
        assert part in shown.content
    assert "alert" not in shown.content
    for path, text in (("b", '{"tea": 3}'), ("c", "größe"), ("d", "größe"), ("e", "packed")):
        assert await fetch(server.url(f"/{path}"), server.host) == Done(f"{server.url(f'/{path}')}\n\n{text}")
    assert await fetch(server.url("/f"), "localhost") == Done(f"{server.url('/f')}\n\n(the page has no text)")
    assert all(f"Host: {server.host}" in head and "Cookie" not in head for head in server.asked)


@pytest.mark.behaviour("tools:web:guarded")
@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (
            "http://localhost:{port}/a",
            "which is not a public address; whoever runs Flux can name it in web_fetch_hosts",
        ),
        ("http://127.0.0.1:{port}/a", "127.0.0.1 is 127.0.0.1, which is not a public address"),
        ("http://2130706433:{port}/a", "2130706433 is 127.0.0.1, which is not a public address"),
        ("http://0x7f.1:{port}/a", "0x7f.1 is 127.0.0.1, which is not a public address"),
        ("http://0:{port}/a", "0 is 0.0.0.0, which is not a public address"),
        ("http://[::1]:{port}/a", "::1 is ::1, which is not a public address"),
        ("http://[::ffff:127.0.0.1]:{port}/a", "which is not a public address"),
        ("http://169.254.169.254/latest/meta-data", "never reached"),
        ("http://[64:ff9b::7f00:1]/", "which is not a public address"),
        ("ftp://localhost/a", "only addresses that begin with https:// or http:// are fetched"),
        ("file:///etc/passwd", "only addresses that begin with https:// or http:// are fetched"),
        ("localhost/a", "only addresses that begin with https:// or http:// are fetched"),
        ("http://", "only addresses that begin with https:// or http:// are fetched"),
        ("http://me:secret@localhost:{port}/a", "an address with a user name in it is not fetched"),
        ("http://localhost:99999/", "there is no port 99999"),
        ("http://a b/", ""),
        ("http://\0/", ""),
        ("http://" + "a" * 70 + ".example/", ""),
        ("", "only addresses"),
    ],
)
async def test_what_is_not_public_is_not_reached(server: Web, url: str, reason: str) -> None:
    server.page("/a", "secret", "Content-Type: text/plain")
    outcome = await fetch(url.replace("{port}", str(server.port)))
    assert isinstance(outcome, Failed)
    assert reason in outcome.content
    assert "\n" not in outcome.content
    assert server.asked == []


@pytest.mark.behaviour("tools:web:guarded")
def test_addresses_that_are_somebodys_own() -> None:
    own = (
        "127.0.0.1 10.0.0.1 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 0.0.0.0 224.0.0.1 255.255.255.255 "
        "192.0.0.170 198.18.0.1 :: ::1 fe80::1 fe80::1%eth0 fc00::1 fd00:ec2::254 ff02::1 fec0::1 ::ffff:8.8.8.8 "
        "64:ff9b::a00:1 64:ff9b:1::1 2002:7f00:1:: 2001::1 2001:db8::1 nonsense"
    )
    assert [address for address in own.split() if is_public(address)] == []
    assert all(is_public(address) for address in ("8.8.8.8", "1.1.1.1", "2606:4700:4700::1111"))


@pytest.mark.behaviour("tools:web:redirects")
async def test_a_redirect_is_looked_at_like_an_address(server: Web) -> None:
    server.page("/a", "", "Location: /b", "Set-Cookie: a=b", status="302 Found")
    server.page("/b", "there", "Content-Type: text/plain")
    server.page("/own", "", f"Location: http://127.0.0.1:{server.port}/b", status="301 Moved Permanently")
    server.page("/file", "", "Location: file:///etc/passwd", status="307 Temporary Redirect")
    server.page("/loop", "", "Location: /loop", status="302 Found")
    assert await fetch(server.url("/a"), "localhost") == Done(f"{server.url('/b')}\n\nthere")
    assert "Cookie" not in server.asked[1]
    for path, reason in (
        ("/own", "127.0.0.1 is 127.0.0.1, which is not a public address"),
        ("/file", "only addresses that begin with https:// or http:// are fetched"),
        ("/loop", "it was redirected more than 5 times"),
    ):
        outcome = await fetch(server.url(path), "localhost")
        assert isinstance(outcome, Failed)
        assert reason in outcome.content


@pytest.mark.behaviour("tools:web:guarded")
async def test_the_address_that_was_looked_at_is_the_one_that_is_used(
    server: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.page("/a", "pinned", "Content-Type: text/plain")
    looked_up: list[str] = []

    async def getaddrinfo(host: str, port: int, **_: Any) -> Any:
        looked_up.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    url = f"http://shop.example:{server.port}/a"
    assert await fetch(url, "shop.example") == Done(f"{url}\n\npinned")
    assert [host for host in looked_up if host != "127.0.0.1"] == ["shop.example"]
    assert f"Host: shop.example:{server.port}" in server.asked[0]


@pytest.mark.behaviour("tools:web:capped")
async def test_a_page_is_read_up_to_a_limit_of_bytes_and_of_time(server: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "MAX_BYTES", 1_000)
    server.page("/long", "x" * 5_000, "Content-Type: text/plain")
    server.page("/bomb", gzip.compress(b"x" * 50_000_000), "Content-Type: text/plain", "Content-Encoding: gzip")
    server.page("/deep", "<div>" * 300 + "x", "Content-Type: text/html")
    for path in ("/long", "/bomb"):
        shown = await fetch(server.url(path), "localhost")
        assert shown == Done(f"{server.url(path)}\n\n{'x' * 1_000}\n[only the first 1,000 bytes were read]")
    assert isinstance(await fetch(server.url("/deep"), "localhost"), Done)
    monkeypatch.setattr(web, "SECONDS", 0.3)
    assert await fetch(server.url("/hang"), "localhost") == Failed(
        f"{server.url('/hang')}: not there after 0.3 seconds", timeout=True
    )


@pytest.mark.behaviour("tools:web:errors")
async def test_what_is_no_text_or_not_there_is_one_line(server: Web) -> None:
    server.page("/pdf", b"%PDF", "Content-Type: application/pdf")
    server.page("/packed", b"x", "Content-Type: text/plain", "Content-Encoding: br")
    server.page("/lies", b"x" * 20, "Content-Type: text/plain", "Content-Encoding: gzip")
    server.page("/charset", b"x", "Content-Type: text/plain; charset=nonsense")
    server.pages["/broken"] = b"nonsense\r\n\r\n"
    expected = {
        "/none": "the server answered 404 Not Found",
        "/pdf": "is application/pdf of 4 bytes, which is no text; it is not shown",
        "/packed": "the server packed it as br, which was not asked for",
        "/lies": "incorrect header check",
        "/broken": "illegal status line",
    }
    for path, reason in expected.items():
        outcome = await fetch(server.url(path), "localhost")
        assert isinstance(outcome, Failed)
        assert reason in outcome.content
        assert "\n" not in outcome.content
    assert isinstance(await fetch(server.url("/charset"), "localhost"), Done)


@pytest.mark.behaviour("tools:web:tls")
async def test_a_certificate_must_be_for_the_name_and_not_for_the_address(tmp_path: Path) -> None:
    server = Web()
    server.page("/a", "safe", "Content-Type: text/plain")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(tmp_path, "localhost"))
    listening = await asyncio.start_server(server.answer, "127.0.0.1", 0, ssl=context)
    server.port = listening.sockets[0].getsockname()[1]
    trust = ssl.create_default_context(cafile=str(tmp_path / "localhost.pem"))
    url = f"https://localhost:{server.port}/a"
    assert await fetch(url, "localhost", trust=trust) == Done(f"{url}\n\nsafe")
    for other, more in ((url, {}), (url.replace("localhost", "127.0.0.1"), {"trust": trust})):
        outcome = await fetch(other, "localhost", "127.0.0.1", **more)
        assert isinstance(outcome, Failed)
        assert "certificate verify failed" in outcome.content.lower()
    listening.close()


def certificate(folder: Path, name: str) -> Path:
    """A certificate that signs itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    named = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(named)
        .issuer_name(named)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / f"{name}.pem"
    path.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.mark.behaviour("tools:web:setting")
def test_hosts_are_named_in_the_settings(tmp_path: Path) -> None:
    def named(**variables: str) -> Settings:
        return load_settings({"HOME": str(tmp_path), **variables}, cwd=tmp_path)

    assert named().web_fetch_hosts == ()
    assert named(FLUX_WEB_FETCH_HOSTS="docs.local, wiki.local:8080").web_fetch_hosts == (
        "docs.local",
        "wiki.local:8080",
    )
    folder = tmp_path / ".config" / "flux"
    folder.mkdir(parents=True)
    (folder / "flux.toml").write_text('[flux]\nweb_fetch_hosts = ["docs.local"]\n')
    assert named().web_fetch_hosts == ("docs.local",)
