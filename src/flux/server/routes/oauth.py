"""/oauth: where browsers come back to after a login at an MCP server, and who we are to authorisation servers."""

from __future__ import annotations

import html

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse

from flux.errors import FluxError
from flux.server.context import process_of

router = APIRouter(prefix="/oauth", include_in_schema=False)

HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
}
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Flux</title>
<body style="font-family: sans-serif; margin: 4em auto; max-width: 30em"><h1>{title}</h1><p>{text}</p></body></html>"""


@router.get("/callback")
async def callback(
    request: Request, state: str = "", code: str | None = None, iss: str | None = None, error: str | None = None
) -> HTMLResponse:
    """Finish a login, and let the call go on that waits for it."""
    try:
        await process_of(request).logins.came_back(state, code, iss, error)
    except FluxError as problem:
        return _page("The login did not work", str(problem), problem.status)
    return _page("You are logged in", "The agent goes on. You can close this page.", 200)


@router.get("/client.json")
async def client(request: Request) -> JSONResponse:
    """The client that authorisation servers read of, which know clients by an address."""
    pool = process_of(request).mcp
    about = {
        "client_id": pool.document,
        "client_name": "Flux",
        "redirect_uris": [pool.callback],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    }
    return JSONResponse(about)


def _page(title: str, text: str, status: int) -> HTMLResponse:
    return HTMLResponse(PAGE.format(title=html.escape(title), text=html.escape(text)), status, headers=HEADERS)
