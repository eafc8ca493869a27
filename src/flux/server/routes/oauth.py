"""/oauth: where browsers come back to after a login at an MCP server, and who we are to authorisation servers."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse

from flux.agents.mcp.doorman import HEADERS, finished
from flux.server.context import process_of

router = APIRouter(prefix="/oauth", include_in_schema=False)


@router.get("/callback")
async def callback(
    request: Request, state: str = "", code: str | None = None, iss: str | None = None, error: str | None = None
) -> HTMLResponse:
    """Finish a login, and let the call go on that waits for it."""
    status, page = await finished(process_of(request).logins, state, code, iss, error)
    return HTMLResponse(page, status, headers=HEADERS)


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
