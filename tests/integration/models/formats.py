"""Where each wire format carries the schema of an answer, and which models answer by which means."""

import json
from dataclasses import dataclass
from typing import Any

from tests.integration.models.wires import BY_NAME, Wire, anthropic, chat, google, responses

TOOL = "final_result"


@dataclass(frozen=True)
class Means:
    """A model and how it is made to answer in a format."""

    model: str

    @property
    def wire(self) -> Wire:
        return BY_NAME[self.model.partition("/")[0]]

    def native(self, body: dict[str, Any]) -> Any:
        """The schema the answer has to keep to, None when the request has none."""
        if self.wire.answer is responses:
            return _at(body, "text", "format", "schema")
        if self.wire.answer is chat:
            return _at(body, "response_format", "json_schema", "schema")
        if self.wire.answer is anthropic:
            return _at(body, "output_config", "format", "schema")
        return _at(body, "generationConfig", "responseJsonSchema")

    def tools(self, body: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The schemas of the tools by their names."""
        found = body.get("tools", [])
        if self.wire.answer is google:
            found = [tool for group in found for tool in group["functionDeclarations"]]
        flat = [tool.get("function", tool) for tool in found]
        keys = ("parameters", "input_schema", "parameters_json_schema", "parametersJsonSchema")
        return {tool["name"]: next(tool[key] for key in keys if key in tool) for tool in flat}

    def forced(self, body: dict[str, Any]) -> Any:
        """ "any" when some tool has to be called, the name when it has to be this one, else "auto" or "none"."""
        if self.wire.answer is google:
            config = body["toolConfig"]["functionCallingConfig"]
            names = config.get("allowedFunctionNames")
            return names[0] if names else {"VALIDATED": "auto"}.get(config["mode"], config["mode"].lower())
        choice = body["tool_choice"]
        if isinstance(choice, str):
            return {"required": "any"}.get(choice, choice)
        return choice.get("function", choice).get("name") or choice["type"]

    def history(self, body: dict[str, Any]) -> str:
        """What was said so far, as text."""
        return json.dumps([body.get(key) for key in ("messages", "input", "contents")])


def _at(body: Any, *path: str) -> Any:
    for step in path:
        body = body.get(step) if isinstance(body, dict) else None
    return body


NATIVE = [
    Means("openai/gpt-4.1"),
    Means("openai-chat/gpt-4.1"),
    Means("anthropic/claude-haiku-4-5"),
    Means("google/gemini-3.8-flash"),
    Means("openrouter/openai/gpt-5"),
]
"""Models that have means of their own, with tools beside it too."""

NATIVE_ALONE = [*NATIVE, Means("google/gemini-2.5-flash"), Means("ollama/llama3.2")]
"""Models that have means of their own where no tool is offered."""

BY_TOOL = [
    Means("openai/gpt-4"),
    Means("openai-chat/gpt-3.5-turbo"),
    Means("anthropic/kimi-k2"),
    Means("google/gemini-2.5-flash"),
    Means("openrouter/mistralai/mistral-large"),
    Means("ollama/llama3.2"),
    Means("own/some-model"),
]
"""Models that have to call a tool, at least where others are offered too."""
