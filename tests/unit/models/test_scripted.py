"""Scripted models: what they remember."""

from pathlib import Path

import msgspec
import pytest

from flux.errors import DefinitionInvalid
from flux.messages import AssistantMessage, ReasoningDelta, TextPart, ToolResult, UserMessage, text_of
from flux.models.base import ModelRequest, OutputSchema
from flux.models.bundled import scripted
from flux.models.scripted import Reply, ScriptedModel


def saying(text: str) -> ModelRequest:
    return ModelRequest(system="", messages=(UserMessage((TextPart(text),)),))


async def ask(model: ScriptedModel, times: int) -> None:
    for number in range(times):
        async for _ in model.stream(saying(str(number))):
            pass


@pytest.mark.behaviour("models:scripted:bounded")
async def test_a_scripted_model_remembers_its_last_requests() -> None:
    model = ScriptedModel([Reply("x")])
    await ask(model, 1_200)
    assert model.requests == [saying(str(number)) for number in range(200, 1_200)]


@pytest.mark.behaviour("models:scripted:bounded")
async def test_bundled_models_remember_nothing() -> None:
    model = scripted("echo")
    assert isinstance(model, ScriptedModel)
    await ask(model, 3)
    assert model.requests == []


@pytest.mark.behaviour("models:scripted:file")
async def test_a_script_in_a_file_says_its_turns_with_what_was_said_filled_in(tmp_path: Path) -> None:
    path = tmp_path / "script.yaml"
    path.write_text("- calls: [{name: look, args: {n: 1}}]\n- text: 'You said {message}; I saw {results}.'\n")
    model = scripted(path.name, tmp_path)
    first = [event async for event in model.stream(saying("hi"))][-1]
    assert isinstance(first, AssistantMessage)
    (call,) = first.calls
    assert (call.name, call.args) == ("look", {"n": 1})
    history = (UserMessage((TextPart("hi"),)), first, ToolResult(call, "stars"))
    last = [event async for event in model.stream(ModelRequest("", history))][-1]
    assert isinstance(last, AssistantMessage)
    assert text_of(last.parts) == "You said hi; I saw stars."


@pytest.mark.behaviour("models:scripted:file-wrong")
@pytest.mark.parametrize("text", [None, "", "[]", "text: x", "- tekst: x", "- [", "- calls: 3"])
def test_a_file_that_is_no_script_is_refused_with_its_name(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "script.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DefinitionInvalid, match=r"script\.yaml"):
        scripted(path.name, tmp_path)


@pytest.mark.behaviour("models:scripted:folder")
def test_a_script_is_a_file_of_the_folder_and_of_no_other(tmp_path: Path) -> None:
    """Whoever names a model over HTTP could otherwise name any file of the machine."""
    folder, outside = tmp_path / "here", tmp_path / "keys.yaml"
    (folder / "below").mkdir(parents=True)
    outside.write_text("password: hunter2")
    (folder / "link.yaml").symlink_to(outside)
    (folder / "below/ok.yaml").write_text("- text: ok")
    (folder / "large.yaml").write_text(f"- text: {'x' * 1_000_001}")
    (folder / "bomb.yaml").write_text("- text: &a ok\n- text: *a")
    scripted("below/ok.yaml", folder)
    for name in ("../keys.yaml", str(outside), "link.yaml", "below/../../keys.yaml", "../none.yaml"):
        with pytest.raises(DefinitionInvalid, match=r"it must be in the directory of this process$"):
            scripted(name, folder)
    for name, why in (("none.yaml", "no such file"), ("large.yaml", "more than"), ("bomb.yaml", "aliases")):
        with pytest.raises(DefinitionInvalid, match=why):
            scripted(name, folder)
    with pytest.raises(DefinitionInvalid):
        scripted("\0.yaml", folder)


@pytest.mark.behaviour("models:output:native")
async def test_a_script_is_told_the_format_and_does_not_stream_its_object() -> None:
    model = ScriptedModel([Reply('{"n": 1}', reasoning="Hm.")])
    output = OutputSchema("Number", {"type": "object", "properties": {"n": {"type": "integer"}}})
    request = msgspec.structs.replace(saying("a number"), output=output)
    *deltas, answer = [event async for event in model.stream(request)]
    assert deltas == [ReasoningDelta("Hm.")]
    assert isinstance(answer, AssistantMessage)
    assert text_of(answer.parts) == '{"n": 1}'
    assert model.requests[0].output == output
