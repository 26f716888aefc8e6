"""A server on 127.0.0.1 that speaks the part of GitHub's REST API that a comment needs.

By its documentation: https://docs.github.com/rest/issues/comments and
https://docs.github.com/rest/using-the-rest-api. It is no recording: nothing here ran against
GitHub.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "ghs_correct0horse0battery0staple"
BOT = "github-actions[bot]"


@dataclass
class Fault:
    """What happens to the next request of a method in place of, or (``done``) after, its work."""

    method: str
    status: int = 0
    """0: the connection is closed without an answer."""
    headers: dict[str, str] = field(default_factory=dict)
    message: str = ""
    done: bool = False


@dataclass
class FakeGitHub:
    """The comments of pull request 7 in octo/hello, and every request that came."""

    url: str = ""
    login: str | None = None
    """Who the token's user is; None: it is an app's token, which has none."""
    author: str = BOT
    comments: list[dict[str, Any]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    before: Callable[[str, str], None] = lambda method, path: None
    lock: threading.RLock = field(default_factory=threading.RLock)
    ids: int = 100

    def add(self, body: str, author: str | None = None) -> dict[str, Any]:
        with self.lock:
            self.ids += 1
            made = {
                "id": self.ids,
                "body": body,
                "html_url": f"https://github.com/octo/hello/pull/7#issuecomment-{self.ids}",
                "user": {"login": author or self.author, "type": "Bot"},
            }
            self.comments.append(made)
            return made

    def bodies(self) -> list[str]:
        return [one["body"] for one in self.comments]

    def count(self, method: str) -> int:
        return sum(one == method for one, _ in self.requests)

    def answer(self, method: str, path: str, payload: Any) -> tuple[int, dict[str, str], Any]:
        """Status, headers and JSON."""
        route, _, query = path.partition("?")
        if route == "/user":
            if self.login is None:
                return 403, {}, {"message": "Resource not accessible by integration"}
            return 200, {}, {"login": self.login}
        if route == "/repos/octo/hello/issues/7/comments":
            if method == "POST":
                return 201, {}, self.add(payload["body"])
            return self._page(route, query)
        if found := re.fullmatch(r"/repos/octo/hello/issues/comments/(\d+)", route):
            return self._one(method, int(found[1]), payload)
        return 404, {}, {"message": "Not Found"}

    def _page(self, route: str, query: str) -> tuple[int, dict[str, str], Any]:
        asked = dict(part.split("=") for part in query.split("&"))
        size, page = int(asked["per_page"]), int(asked["page"])
        assert size <= 100
        shown = self.comments[(page - 1) * size : page * size]
        more = page * size < len(self.comments)
        next_ = f'<{self.url}{route}?per_page={size}&page={page + 1}>; rel="next"'
        return 200, {"Link": next_} if more else {}, shown

    def _one(self, method: str, number: int, payload: Any) -> tuple[int, dict[str, str], Any]:
        found = next((one for one in self.comments if one["id"] == number), None)
        if found is None:
            return 404, {}, {"message": "Not Found"}
        if method == "DELETE":
            self.comments.remove(found)
            return 204, {}, None
        found["body"] = payload["body"]
        return 200, {}, found


@contextlib.contextmanager
def serving() -> Iterator[FakeGitHub]:
    """A running server; it ends with the block."""
    github = FakeGitHub()

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            github.before(self.command, self.path)
            with github.lock:
                github.requests.append((self.command, self.path))
                github.headers.append(dict(self.headers.items()))
                status, headers, data = self.served(json.loads(body) if body else None)
            if status == 0:
                self.close_connection = True
                return
            self.send_response(status)
            text = b"" if data is None else json.dumps(data).encode()
            for name, value in {**headers, "Content-Length": str(len(text))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)

        def served(self, payload: Any) -> tuple[int, dict[str, str], Any]:
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                return 401, {}, {"message": "Bad credentials"}
            fault = next((one for one in github.faults if one.method == self.command), None)
            if fault:
                github.faults.remove(fault)
                if fault.done:
                    github.answer(self.command, self.path, payload)
                return fault.status, fault.headers, {"message": fault.message}
            return github.answer(self.command, self.path, payload)

        do_GET = do_POST = do_PATCH = do_DELETE = handle_any

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    github.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield github
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
