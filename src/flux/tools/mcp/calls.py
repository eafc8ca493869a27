"""A server's tool as a tool of an agent: one call, with whatever the server asks meanwhile."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

import mcp_types as types
from mcp.shared.exceptions import MCPError

from flux.events import Elicited, InputRequired
from flux.tools.base import Answer, Done, Failed, NeedsInput, ToolContext, ToolOutcome
from flux.tools.mcp import elicit, login
from flux.tools.mcp.connection import BAD_ANSWER, Down, Listed, reason_of
from flux.tools.mcp.content import text_of
from flux.tools.mcp.elicit import Refused
from flux.tools.mcp.link import Link
from flux.tools.mcp.oauth import LoginNeeded
from flux.tools.schema import faults

#: Questions that one call may ask, and rounds without a question.
MOST_QUESTIONS, MOST_ROUNDS = 20, 10
ROUND_PAUSE = 0.1
AGAIN = ("yes", "no")


class ServerTool:
    """Runs one tool of a server; `value`: what it returns is for code, so its content is JSON."""

    def __init__(
        self, link: Link, server: str, listed: Listed, *, timeout: float, window: float, value: bool = False
    ) -> None:
        self._kind = ValueCall if value else Call
        self._link = link
        self._server = server
        self._listed = listed
        self._timeout = timeout
        self._window = window

    async def __call__(self, args: dict[str, Any], context: ToolContext) -> ToolOutcome:
        """Call the tool, or go on with a call whose question was answered."""
        if len(context.answers) > MOST_QUESTIONS:
            return Failed(f"{self._server} asked {MOST_QUESTIONS} times and still is not content")
        try:
            return await self._kind(self._link, self._server, self._listed, context, self._window).run(
                args, self._timeout
            )
        except LoginNeeded as needed:
            await self._link.expect_login()
            return await login.ask(needed, self._server, self._link.vault, context.session)
        except Down as down:
            return Failed(f"the MCP server {self._server} cannot be used: {down}")
        except Refused as refused:
            return Failed(f"the MCP server {self._server} cannot be answered: {refused}")


class Call:
    """One call on its way, in this process."""

    def __init__(self, link: Link, server: str, listed: Listed, context: ToolContext, window: float) -> None:
        self._link = link
        self._server = server
        self._listed = listed
        self._context = context
        self._window = window
        self._left: NeedsInput | None = None
        self._leaving = asyncio.Event()
        self._gone = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()
        self._asking = 0
        self._limit: asyncio.Timeout | None = None
        self._given = _given(context.answers)

    async def run(self, args: dict[str, Any], timeout: float) -> ToolOutcome:
        """The result, or the question that has to be answered first.

        :raises Down: the server cannot be used
        :raises Refused: it asks what nobody can be asked
        """
        answer = self._context.answer
        if answer is not None and isinstance(asked := answer.question, Elicited) and _shape(asked) == "login":
            outcome = await login.resume(answer, asked, self._link.vault, self._window)
            if outcome is not None:
                return outcome
        params = self._resumed(args)
        if not isinstance(params, types.CallToolRequestParams):
            return params
        try:
            async with asyncio.timeout(timeout) as self._limit:
                return await self._rounds(params)
        except TimeoutError:
            return Failed(f"[{self._server} did not answer within {timeout:g} s; the call was cancelled]", timeout=True)
        except MCPError as error:
            needed = elicit.required(error)
            if not needed:
                return Failed(f"{self._server}: {reason_of(error)}")
            return self._required(needed)
        except BAD_ANSWER as error:
            return Failed(f"{self._server} answered with what cannot be read: {reason_of(error)}")

    async def _rounds(self, params: types.CallToolRequestParams) -> ToolOutcome:
        for _ in range(MOST_ROUNDS):
            answer = await self._issue(params)
            if self._left is not None:
                return self._left
            if isinstance(answer, types.CallToolResult):
                return await self._result(answer)
            if answer.input_requests:
                return self._inputs(answer)
            await asyncio.sleep(ROUND_PAUSE)
            params = params.model_copy(update={"request_state": answer.request_state, "input_responses": None})
        return Failed(f"{self._server} asked to call again {MOST_ROUNDS} times, and never came to a result")

    async def _issue(self, params: types.CallToolRequestParams) -> Any:
        """Send the call; leave it when nobody answers in time what the server asks meanwhile."""
        call = asyncio.create_task(self._link.call(self._listed, params, self._elicited, self._progress))
        leaving = asyncio.create_task(self._leaving.wait())
        # A question may have been taken for this call's that is another's: it must be answered all the same.
        answered = asyncio.create_task(self._after(call))
        tasks = (call, leaving, answered)
        try:
            await asyncio.wait((leaving, answered), return_when=asyncio.FIRST_COMPLETED)
            return None if self._leaving.is_set() else call.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            if not call.cancelled():
                call.exception()
            self._gone.set()

    async def _after(self, call: asyncio.Task[Any]) -> None:
        await asyncio.wait((call,))
        await self._settled.wait()

    async def _result(self, answer: types.CallToolResult) -> ToolOutcome:
        text = await text_of(answer, self._context.keep)
        if answer.is_error:
            return Failed(text or "the tool failed and did not say why")
        schema = self._listed.output_schema
        if schema is not None and "structured_content" in answer.model_fields_set:
            wrong = faults(schema, answer.structured_content)
            if wrong:
                return Failed(
                    f"[{self._server} broke its own schema for this result: {'; '.join(wrong)[:500]}]\n{text}"
                )
        return Done(text)

    async def _progress(self, progress: float, total: float | None, message: str | None) -> None:
        if message:
            self._context.output(f"{message}\n")

    # What the server asks while the call runs.

    async def _elicited(self, params: Any) -> types.ElicitResult:
        print_ = elicit.fingerprint(params)
        if print_ in self._given:
            return self._given.pop(print_)
        note = ""
        while True:
            try:
                needed = elicit.question(
                    self._server, params, {"shape": "in_flight", "print": print_}, note, self._link.server.url
                )
            except Refused as refused:
                self._context.output(f"[{self._server} was refused: {refused}]\n")
                return types.ElicitResult(action="decline")
            answer = await self._ask(needed)
            if answer is None:
                return types.ElicitResult(action="cancel")
            try:
                return elicit.result(answer, needed.payload.get("schema"))
            except Refused as refused:
                note = f"({refused}) "

    async def _ask(self, needed: NeedsInput) -> Answer | None:
        """Ask, and stop the clock meanwhile; None when the call is left."""
        self._asking += 1
        self._settled.clear()
        deadline = self._limit.when() if self._limit else None
        self._extend(None)
        asked_at = asyncio.get_running_loop().time()
        try:
            answer = await self._context.ask(needed, self._window)
        finally:
            self._asking -= 1
            if not self._asking:
                self._settled.set()
        if answer is None:
            self._left = needed
            self._leaving.set()
            await self._gone.wait()
        elif deadline is not None:
            self._extend(deadline + asyncio.get_running_loop().time() - asked_at)
        return answer

    def _extend(self, deadline: float | None) -> None:
        if self._limit is not None and not self._gone.is_set():
            self._limit.reschedule(deadline)

    # What was asked, and is answered now.

    def _resumed(self, args: dict[str, Any]) -> types.CallToolRequestParams | ToolOutcome:
        """What to send now; or the outcome, if that is decided."""
        meta: Any = {"flux/call": self._context.call}
        params = types.CallToolRequestParams(name=self._listed.name, arguments=args, _meta=meta)
        answers = [answer for answer in self._context.answers if _shape(answer.question) != "login"]
        repeat = answers.pop() if answers and isinstance(answers[-1].question, InputRequired) else None
        if not answers or not isinstance(asked := answers[-1].question, Elicited):
            return params
        answer, state = answers[-1], asked.state or {}
        if state.get("shape") == "input":
            return self._input_given(params, asked, answer)
        if answer.decision != "accept":
            return Failed(f"[a person answered {self._server} with {answer.decision}: {asked.message}]")
        if state.get("shape") == "required":
            rest = elicit.asked(state.get("rest", []))
            return self._required(rest) if rest else params
        problem = elicit.problem(answer, asked.schema)
        return _once_more(asked, problem) if problem else self._again(params, repeat)

    def _again(
        self, params: types.CallToolRequestParams, repeat: Answer | None
    ) -> types.CallToolRequestParams | ToolOutcome:
        """The call was cancelled while it waited; one that must not happen twice is asked about."""
        if self._listed.effect != "once" or (repeat is not None and str(repeat.content).lower() == AGAIN[0]):
            return params
        if repeat is not None:
            return Failed("[a person does not want this call to be made again]")
        return NeedsInput(
            "input",
            {
                "question": f"{self._server} waited for your answer too long, so {self._listed.name} was cancelled. "
                "It may have done something before. Call it again?",
                "options": list(AGAIN),
            },
        )

    def _inputs(self, answer: types.InputRequiredResult) -> ToolOutcome:
        """Ask for the first thing that the server needs."""
        wanted = []
        for key, request in (answer.input_requests or {}).items():
            if not isinstance(request, types.ElicitRequest):
                raise Refused(f"it wants {request.method}, which agents do not offer")
            wanted.append([key, elicit.kept(request.params)])
        return self._next_input(wanted, {}, answer.request_state)

    def _next_input(self, wanted: list[Any], given: dict[str, Any], request_state: str | None) -> ToolOutcome:
        (params,) = elicit.asked([wanted[0][1]])
        state = {"shape": "input", "wanted": wanted, "given": given, "request_state": request_state}
        return elicit.question(self._server, params, state, own=self._link.server.url)

    def _input_given(
        self, params: types.CallToolRequestParams, asked: Elicited, answer: Answer
    ) -> types.CallToolRequestParams | ToolOutcome:
        state = asked.state
        wanted, given = list(state["wanted"]), dict(state["given"])
        problem = elicit.problem(answer, asked.schema)
        if problem:
            return _once_more(asked, problem)
        key, _ = wanted.pop(0)
        given[key] = elicit.result(answer, asked.schema).model_dump(by_alias=True, mode="json", exclude_none=True)
        if wanted:
            return self._next_input(wanted, given, state["request_state"])
        responses = {key: types.ElicitResult.model_validate(one) for key, one in given.items()}
        return params.model_copy(update={"input_responses": responses, "request_state": state["request_state"]})

    def _required(self, needed: list[Any]) -> ToolOutcome:
        """Ask for the first of what the server wants done before the call."""
        first, *rest = needed
        state = {"shape": "required", "rest": [elicit.kept(one) for one in rest]}
        return elicit.question(self._server, first, state, own=self._link.server.url)


class ValueCall(Call):
    """A call whose result is for code."""

    async def _result(self, answer: types.CallToolResult) -> ToolOutcome:
        outcome = await super()._result(answer)
        if not isinstance(outcome, Done):
            return outcome
        value = answer.structured_content
        if isinstance(value, dict) and value.keys() == {"result"}:
            value = value["result"]
        return Done(json.dumps(outcome.content if value is None else value))


def _once_more(asked: Elicited, problem: str) -> NeedsInput:
    """The same question, with what was wrong about the answer."""
    message = asked.state.get("message", asked.message)
    payload = {
        "mode": asked.mode,
        "message": f"({problem}) {message}",
        "server_name": asked.server_name,
        "elicitation_id": asked.elicitation_id,
        "schema": asked.schema,
        "state": asked.state | {"message": message},
    }
    return NeedsInput("elicitation", payload)


def _shape(asked: Any) -> str | None:
    """What kind of question of a server this is."""
    return asked.state.get("shape") if isinstance(asked, Elicited) and isinstance(asked.state, dict) else None


def _given(answers: tuple[Answer, ...]) -> dict[str, types.ElicitResult]:
    """Answers to questions of a call that was cancelled meanwhile: when the server asks again, it gets them."""
    found = {}
    for answer in answers:
        asked = answer.question
        if isinstance(asked, Elicited) and _shape(asked) == "in_flight":
            with suppress(Refused):
                found[asked.state["print"]] = elicit.result(answer, asked.schema)
    return found
