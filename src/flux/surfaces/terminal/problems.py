"""What an error tells the person at the terminal: one line, and what to do."""

from __future__ import annotations

from flux.errors import FluxError, SessionEnded, Unauthorized

SIGN_IN = "set FLUX_AUTH_TOKEN or run `flux auth login`"


LOST = (
    "Error: the connection to the server was lost. Your session is stored: "
    "start the server and /retry, or leave with Ctrl+D and resume."
)


def problem(error: FluxError, *, interactive: bool = True) -> str:
    """The line for an error while chatting; keys and commands help only those who can type them."""
    if isinstance(error, Unauthorized):
        return f"Error: {_refusal(error)} (401); {SIGN_IN}"
    if isinstance(error, SessionEnded):
        leave = "leave with Ctrl+D and " if interactive else ""
        return f"The session has ended and takes no more messages; {leave}start the agent again."
    return f"Error: {error}"


def start_problem(error: FluxError) -> str:
    """The line for an error before there is a session."""
    if isinstance(error, Unauthorized):
        return f"Error starting agent: {_refusal(error)}: 401; {SIGN_IN}"
    return f"Error starting agent: {error}"


def page_problem(error: Unauthorized) -> str:
    """The line for a page that may not be served: whoever opened it would act with no token, or with a bad one."""
    without = _refusal(error) == _refusal(Unauthorized())
    return f"Agent process started without a token; {SIGN_IN}" if without else start_problem(error)


def _refusal(error: FluxError) -> str:
    """What was refused; the remedy, which servers add, is said in words of our own."""
    return str(error).partition(";")[0]
