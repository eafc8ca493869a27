"""Secrets and configs, given to the tasks that ask for them.

`printf TOKEN | flux secrets set api_token` and `flux config set region eu` set them.
"""

from flux import ExecutionContext, task, workflow
from flux.tasks.config_task import get_config


@task.with_options(secret_requests=["api_token"], config_requests=["region"])
async def fetch(*, secrets: dict[str, str], config: dict[str, str]) -> str:
    return f"a token of {len(secrets['api_token'])} characters for {config['region']}"


@workflow
async def secrets_and_configs(ctx: ExecutionContext[None]) -> list[str]:
    return [await fetch(), await get_config("region")]


if __name__ == "__main__":
    context = secrets_and_configs.run()
    print(context.output if context.has_succeeded else context.error)
