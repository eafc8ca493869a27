"""Stop for a person's answer, for as long as it takes; another process may go on."""

from flux import ExecutionContext, pause, task, workflow


@task
async def draft(topic: str) -> str:
    return f"All about {topic}"


@workflow
async def pause_with_input(ctx: ExecutionContext[str]) -> str:
    text = await draft(ctx.input)
    verdict = await pause("review", output={"draft": text})
    return text if verdict == "good" else f"{text} ({verdict})"


if __name__ == "__main__":
    waiting = pause_with_input.run("tea")
    print(waiting.state, waiting.pause)
    done = pause_with_input.resume(waiting.execution_id, "too short")
    print(done.state, done.output)
