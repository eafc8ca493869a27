"""Our parser of server-sent events, against the rules of WHATWG HTML section 9.2.6."""

import itertools
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux.client.sse import Parser, ServerEvent, parse

CORPUS = {
    "plain": (b"data: a\n\n", [("", "message", "a")]),
    "carriage returns": (b"data: a\r\rdata: b\r\r", [("", "message", "a"), ("", "message", "b")]),
    "both line ends": (b"data: a\r\n\r\ndata: b\r\n\r\n", [("", "message", "a"), ("", "message", "b")]),
    "mixed line ends": (b"data: a\rdata: b\r\n\ndata: c\n\r", [("", "message", "a\nb"), ("", "message", "c")]),
    "a byte order mark": (b"\xef\xbb\xbfdata: a\n\n", [("", "message", "a")]),
    "a second byte order mark": (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", []),
    "a mark in the data": ("data: \ufeffa\n\n".encode(), [("", "message", "\ufeffa")]),
    "characters of several bytes": ("data: ünï🎉\n\n".encode(), [("", "message", "ünï🎉")]),
    "broken UTF-8": (b"data: a\xffb\xf0\x9f\n\n", [("", "message", "a\ufffdb\ufffd")]),
    "line ends of other standards": (
        "data: a\u2028b\x85c\x0bd\x0ce\n\n".encode(),
        [("", "message", "a\u2028b\x85c\x0bd\x0ce")],
    ),
    "comments": (b": hi\n:\n:data: x\n\ndata: a\n: in between\ndata: b\n\n", [("", "message", "a\nb")]),
    "one empty data line": (b"data\n\n", [("", "message", "")]),
    "an empty data value": (b"data:\n\n", [("", "message", "")]),
    "two empty data lines": (b"data\ndata\n\n", [("", "message", "\n")]),
    "no data": (b"event: x\nid: 1\n\ndata: a\n\n", [("1", "message", "a")]),
    "only the first space": (b"data:  a \ndata:\tb\n\n", [("", "message", " a \n\tb")]),
    "colons in the value": (b"data: a: b:c\n\n", [("", "message", "a: b:c")]),
    "a type": (b"event: token\ndata: a\n\ndata: b\n\n", [("", "token", "a"), ("", "message", "b")]),
    "the last type counts": (b"event: x\nevent: y\ndata: a\n\n", [("", "y", "a")]),
    "an empty type": (b"event: x\nevent:\ndata: a\n\n", [("", "message", "a")]),
    "an id stays": (b"id: 1\ndata: a\n\ndata: b\n\n", [("1", "message", "a"), ("1", "message", "b")]),
    "an id is taken back": (b"id: 1\ndata: a\n\nid\ndata: b\n\n", [("1", "message", "a"), ("", "message", "b")]),
    "an id with NUL": (b"id: 1\ndata: a\n\nid: 2\x003\ndata: b\n\n", [("1", "message", "a"), ("1", "message", "b")]),
    "unknown fields": (b"retry: 5\nfoo: x\nDATA: x\n data: x\ndata: a\n\n", [("", "message", "a")]),
    "not finished": (b"data: a\n\ndata: b\n", [("", "message", "a")]),
    "nothing": (b"\n\n\r\r\r\n", []),
}
SPLIT_PLACES = st.lists(st.integers(0, 80), max_size=8)


def events(chunks: list[bytes]) -> list[ServerEvent]:
    parser = Parser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


def split(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(place, len(stream)) for place in places), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(edges)]


@pytest.mark.behaviour("client:sse:parser")
@pytest.mark.parametrize("name", CORPUS)
def test_a_stream_is_read_as_the_standard_says(name: str) -> None:
    stream, expected = CORPUS[name]
    assert events([stream]) == [ServerEvent(*event) for event in expected]


@pytest.mark.behaviour("client:sse:parser")
@pytest.mark.parametrize("name", CORPUS)
def test_a_stream_may_be_split_between_any_two_bytes(name: str) -> None:
    stream, expected = CORPUS[name]
    assert events([bytes([byte]) for byte in stream]) == [ServerEvent(*event) for event in expected]


@pytest.mark.behaviour("client:sse:parser")
@given(st.lists(st.sampled_from(sorted(CORPUS)), max_size=4), SPLIT_PLACES)
def test_the_chunks_of_a_stream_do_not_matter(names: list[str], places: list[int]) -> None:
    stream = b"\n".join(CORPUS[name][0] for name in names)
    assert events(split(stream, places)) == events([stream])


@pytest.mark.behaviour("client:sse:parser")
@given(st.text("\r\n:ab \0", max_size=30), SPLIT_PLACES)
def test_whatever_comes_is_read_alike_in_any_chunks(text: str, places: list[int]) -> None:
    stream = f"data: {text}\n\n".encode()
    assert events(split(stream, places)) == events([stream])


@pytest.mark.behaviour("client:sse:parser")
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_an_event_is_there_as_soon_as_its_blank_line_ended(end: bytes) -> None:
    assert events([b"data: a" + end + end]) == [ServerEvent("", "message", "a")]


@pytest.mark.behaviour("client:sse:parser")
async def test_a_stream_of_chunks_is_a_stream_of_events() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for chunk in (b"data: a\n", b"\nda", b"ta: b\n\ndata: c"):
            yield chunk

    assert [event.data async for event in parse(chunks())] == ["a", "b"]
