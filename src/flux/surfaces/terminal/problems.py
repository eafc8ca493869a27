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
        return f"Error: {error} (401); {SIGN_IN}"
    if isinstance(error, SessionEnded):
        leave = "leave with Ctrl+D and " if interactive else ""
        return f"The session has ended and takes no more messages; {leave}start the agent again."
    return f"Error: {error}"


def start_problem(error: FluxError) -> str:
    """The line for an error before there is a session."""
    if isinstance(error, Unauthorized):
        return f"Error starting agent: {error}: 401; {SIGN_IN}"
    return f"Error starting agent: {error}"
