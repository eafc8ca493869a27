"""What your webhook handler does: it hands the event over and answers at once.

echo '{"ticket": "ticket-1", "text": "call ticket_status {}"}' | python webhook.py
"""

import asyncio
import json
import sys

from agents.support import default as support

from flux import dispatch


async def received(event):
    receipt = await dispatch(
        support, id=event["ticket"], session="inbox", input=event, idempotency_key=event.get("delivery")
    )
    return receipt.dispatch_id


if __name__ == "__main__":
    print(asyncio.run(received(json.load(sys.stdin))))
