"""A workflow that cleans up when it is cancelled: register it, run it, then `flux workflow cancel ID`.

Its code is also stopped, to be run again later, when it only waits: `is_cancelling` tells the two apart.
"""

import asyncio

from flux import ExecutionContext, pause, workflow


@workflow
async def cancellation(ctx: ExecutionContext[None]) -> None:
    try:
        await pause("wait here")
    except asyncio.CancelledError:
        if ctx.is_cancelling:
            print("cancelled")
        raise


if __name__ == "__main__":
    context = cancellation.run()
    print(context.state)
