"""Who may talk to the server: nobody without the token, no page from elsewhere, nothing large."""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST = 64 * 1024  # bytes of a request's body
LONGEST = 8 * 1024  # characters of an address
COOKIE = "rss-rate"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Guard:
    """An ASGI application around another one that refuses what the page would not send.

    - The header Host must be one of ``hosts``, so that no other name can be made to lead here (DNS rebinding).
    - With a token, a request must carry it: as ``Authorization: Bearer TOKEN``, or as the cookie that opening
      ``/?token=TOKEN`` sets.
    - A page of another origin may neither read nor post: the header Origin, where a browser sends it, must be this
      server's; what is posted must be JSON, which no form of another page can send.

    Args:
        app: what is guarded.
        hosts: values of Host, such as ``"127.0.0.1:8000"``; None: any, which needs a token.
        token: None: none is asked for.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str] | None, token: str | None) -> None:
        if hosts is None and token is None:
            raise ValueError("without a list of hosts a token is needed")
        self.app, self.token = app, token
        self.hosts = None if hosts is None else {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        response = self.refusal(Request(scope))
        await (self.app if response is None else response)(scope, receive, send_guarded)

    def refusal(self, request: Request) -> Response | None:
        """The answer to a request that is not let through; None for one that is."""
        headers = request.headers
        host = headers.get("host", "").lower()
        if len(headers.getlist("host")) != 1 or (self.hosts is not None and host not in self.hosts):
            return PlainTextResponse("This server has another name.", 421)
        if len(request.scope["path"]) + len(request.scope["query_string"]) > LONGEST:
            return PlainTextResponse("The address is too long.", 414)
        site = headers.get("sec-fetch-site", "none")
        origin = headers.get("origin")
        if origin is not None and origin.lower() != f"{request.url.scheme}://{host}":
            return PlainTextResponse("Another page may not talk to this server.", 403)
        opening = request.method == "GET" and request.url.path == "/"  # a link from elsewhere may lead to the page
        if site not in ("none", "same-origin") and not opening:
            return PlainTextResponse("Another page may not talk to this server.", 403)
        if request.method == "POST":
            if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
                return PlainTextResponse("What is posted must be application/json.", 415)
            if not _is_small(headers):
                return PlainTextResponse(f"At most {LARGEST} bytes can be posted.", 413)
        return self._check_token(request, opening)

    def _check_token(self, request: Request, opening: bool) -> Response | None:
        if self.token is None:
            return None
        kind, _, bearer = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and _equal(bearer.strip(), self.token):
            return None
        if _equal(request.cookies.get(COOKIE, ""), self.token):
            return None
        if opening and _equal(request.query_params.get("token", ""), self.token):
            response = RedirectResponse("/", 303)
            response.set_cookie(COOKIE, self.token, httponly=True, samesite="strict", path="/")
            return response
        return PlainTextResponse("Open the address with the token that was printed when the server started.", 401)


def _is_small(headers: Headers) -> bool:
    length = headers.get("content-length", "")
    return length.isascii() and length.isdigit() and int(length) <= LARGEST


def _equal(given: str, token: str) -> bool:
    return secrets.compare_digest(given.encode(), token.encode())
