"""Documents beside a message, in the form of each provider."""

import base64
import json

import pytest

from flux.messages import FilePart, ImagePart, TextPart, UserMessage
from tests.integration.models.calls import answered, asking
from tests.integration.models.conftest import Connect
from tests.integration.models.server import Reply, Server
from tests.integration.models.wires import Wire

PAPER = base64.b64encode(b"%PDF-1.7 of a paper").decode()
PIXEL = base64.b64encode(b"\x89PNG of a dot").decode()


@pytest.mark.behaviour("models:files:sent")
async def test_a_paper_and_a_picture_go_to_the_provider(wire: Wire, server: Server, connect: Connect) -> None:
    server.replies = [Reply(wire.answer(["fine"]))]
    parts = (TextPart("Read"), FilePart(PAPER, "application/pdf", "paper.pdf"), ImagePart(PIXEL, "image/png"))
    await answered(connect(server.url).get(wire.model), asking(UserMessage(parts)))
    sent = json.dumps(server.requests[0].body)
    for part in ("Read", PAPER, PIXEL, "application/pdf"):
        assert part in sent
