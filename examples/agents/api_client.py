"""Talks to an agent over HTTP: streams its answer, and answers what it asks.

    flux agent apply examples/agents/coder.yaml && flux start server
    python examples/agents/api_client.py coder "run echo hello"

FLUX_SERVER and FLUX_AUTH_TOKEN say where the server is, and who asks.
"""

import asyncio
import os
import sys

from flux.client import FluxClient
from flux.events import ApprovalRequired, ChatResponse, RunFailed, Token, ToolDone


async def main(agent: str, text: str) -> int:
    url = os.environ.get("FLUX_SERVER", "http://127.0.0.1:8000")
    async with FluxClient(url, os.environ.get("FLUX_AUTH_TOKEN")) as client:
        session = await client.start_session(agent)
        events = session.send(text)
        while True:
            asked: list[ApprovalRequired] = []
            async for one in events:
                match one.event:
                    case Token(text=piece):
                        print(piece, end="", flush=True)
                    case ToolDone(name=name, outcome=outcome):
                        print(f"\n[{name}: {outcome}]")
                    case ApprovalRequired() as question:
                        asked.append(question)
                    case RunFailed(message=message):
                        print(f"\nfailed: {message}", file=sys.stderr)
                        return 1
                    case ChatResponse():
                        print()
            if not asked:
                return 0
            for question in asked:
                print(f"\n[approve {question.tool} {question.args}]")
                await session.answer(question.id, "approve")
            events = session.until_rest()


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:3])))
