"""Secrets in texts, in entries and in what comes in pieces."""

import base64
import gc
import json
import logging
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flux import redaction
from flux.events import AssistantSaid, ToolDone, decode, encode
from flux.messages import TextPart, ToolCall
from flux.redaction import Known, Pieces
from flux.surfaces.cli.logs import Redacting

PEM = '-----BEGIN "KEY"-----\nabc/def+ü\n-----END-----'


@pytest.fixture
def known() -> Iterator[Known]:
    owner = Known()
    yield owner
    owner.forget()


@pytest.mark.behaviour("secrets:redacted:forms")
def test_a_value_is_found_in_each_usual_form(known: Known) -> None:
    known.add(PEM, "p@ss w/rd!", "short", "  padded-value\n", None, "")
    for form in (
        PEM,
        json.dumps(PEM),
        json.dumps({"a": PEM}, ensure_ascii=False),
        base64.b64encode(PEM.encode()).decode(),
    ):
        assert "abc" not in redaction.text(f"x {form} y")
        assert redaction.REDACTED in redaction.text(form)
    assert redaction.text("postgresql://me:p%40ss%20w%2Frd%21@host/db") == "postgresql://me:***@host/db"
    assert redaction.text("short padded-value.") == "short ***."
    assert redaction.data(b"\xff padded-value \x00") == b"\xff *** \x00"
    assert redaction.value({"padded-value": ["x padded-value", 1, None]}) == {"***": ["x ***", 1, None]}


@pytest.mark.behaviour("secrets:redacted:forms")
def test_a_secret_that_reads_like_a_word_of_ours_breaks_no_entry(known: Known) -> None:
    """Names, ids and states stay: a log without them could not be read."""
    known.add("assistant_message", "success", "deploy", "content", "call_1")
    said = AssistantSaid(
        message_id="call_1", parts=(TextPart("a success"),), calls=(ToolCall("call_1", "deploy", {"name": "deploy"}),)
    )
    done = ToolDone(call="call_1", name="deploy", status="success", outcome="success", content="the content: success")
    hidden, result = redaction.struct(said), redaction.struct(done)
    assert (hidden.parts, hidden.calls) == ((TextPart("a ***"),), (ToolCall("call_1", "deploy", {"name": "***"}),))
    assert (result.status, result.outcome, result.name, result.content) == (
        "success",
        "success",
        "deploy",
        "the ***: ***",
    )
    assert decode(encode(hidden)) == hidden


@pytest.mark.behaviour("secrets:redacted:forms")
def test_what_holds_no_secret_is_the_same_object(known: Known) -> None:
    entry = ToolDone(call="c", name="t", status="success", outcome="success", content="x")
    assert redaction.struct(entry) is entry
    known.add("elsewhere")
    assert redaction.struct(entry) is entry


@pytest.mark.behaviour("secrets:redacted:forms")
def test_what_its_owner_forgets_is_hidden_no_longer() -> None:
    one, other = Known(), Known()
    one.add("the-secret")
    other.add("the-secret", "another-one")
    one.forget()
    assert redaction.text("the-secret another-one") == "*** ***"
    del other
    gc.collect()
    assert redaction.text("the-secret another-one") == "the-secret another-one"


SECRETS = st.lists(st.text("ab", min_size=6, max_size=9), min_size=1, max_size=3)


@pytest.mark.behaviour("secrets:redacted:pieces")
@given(SECRETS, st.lists(st.text("abc", max_size=12), max_size=12))
@example(["xxabcdef", "abcdefghij"], ["..xxabc", "def", "ghij.."])
@example(["abcdef", "abcdefgh"], ["abcdef", "gh"])
@example(["abcdef"], ["abc", "abcdef", "abc"])
def test_pieces_come_to_the_text_that_is_redacted_as_a_whole(secrets: list[str], pieces: list[str]) -> None:
    owner, stream = Known(), Pieces()
    owner.add(*secrets)
    try:
        shown = [stream.add(piece) for piece in pieces]
        whole = "".join([*shown, stream.rest()])
        assert not any(secret in whole for secret in secrets)
        if len(secrets) == 1:
            assert whole == redaction.text("".join(pieces))
    finally:
        owner.forget()


@pytest.mark.behaviour("secrets:redacted:pieces")
def test_only_what_may_begin_a_secret_is_held_back(known: Known) -> None:
    pieces = Pieces()
    assert pieces.add("hello se") == "hello se"
    known.add("secret-value")
    assert [pieces.add(piece) for piece in ("hello se", "cret-", "value", " se", "at")] == [
        "hello ",
        "",
        "***",
        " ",
        "seat",
    ]
    assert pieces.add("secret-") == ""
    assert pieces.rest() == "secret-"
    assert pieces.rest() == ""


@pytest.mark.behaviour("secrets:redacted:logs")
def test_logs_and_their_traces_hold_no_secret(known: Known) -> None:
    known.add("hunter2-hunter2")
    try:
        raise ValueError("no login with hunter2-hunter2")
    except ValueError as error:
        record = logging.LogRecord(
            "flux", 40, "f", 1, "%s", ("hunter2-hunter2",), (ValueError, error, error.__traceback__)
        )
    text = Redacting("%(message)s").format(record)
    assert "hunter2" not in text
    assert "no login with ***" in text


@pytest.mark.behaviour("secrets:redacted:forms")
def test_a_text_with_half_a_pair_is_cleaned_and_kept(known: Known) -> None:
    known.add("hunter2-hunter2")
    said = redaction.struct(TextPart("a\ud800 hunter2-hunter2"))
    assert said.text == f"a\ud800 {redaction.REDACTED}"
