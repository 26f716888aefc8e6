"""Requests to GitHub's REST API: one token, bounded patience, one line for what goes wrong."""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from typing import Any, NamedTuple

from deploy.errors import ConfigError
from deploy.types import Progress, silent

PUBLIC = "https://api.github.com"
_ATTEMPTS = 5
_LONGEST_WAIT_S = 120.0
_TIMEOUT_S = 30.0
_LARGEST_ANSWER = 32 << 20


class Answer(NamedTuple):
    """A response: its status, its headers (names in lower case) and its parsed JSON, or None."""

    status: int
    headers: Mapping[str, str]
    data: Any

    @property
    def message(self) -> str:
        """What GitHub says went wrong; empty where it says nothing."""
        found = self.data.get("message") if isinstance(self.data, dict) else None
        return " ".join(found.split())[:200] if isinstance(found, str) else ""


class NoAnswerError(ConfigError):
    """GitHub did not answer, or only with its own faults: whether it did what was asked is open."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    # urllib would send the token on to wherever a redirect leads.
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


@dataclass(frozen=True)
class Api:
    """A GitHub, with the token that it is asked with; ``repr`` does not show the token.

    ``sleep`` and ``now`` (seconds since the epoch) are there for tests.

    Raises:
        ConfigError: there is no token, it cannot be one, or ``url`` would show it to others.
    """

    token: str = field(repr=False)
    url: str = PUBLIC
    progress: Progress = silent
    sleep: Callable[[float], object] = time.sleep
    now: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        if not self.token:
            raise ConfigError(
                "is not set",
                where="GITHUB_TOKEN",
                hint="In GitHub Actions: env: GITHUB_TOKEN: ${{ github.token }} on the step.",
            )
        if not re.fullmatch(r"[!-~]+", self.token):
            raise ConfigError(
                "holds white space or other characters that no token has",
                where="GITHUB_TOKEN",
                hint="Was a line break pasted with it?",
            )
        if not re.fullmatch(
            r"https://[^/@\s]+(/\S*)?|http://(127\.0\.0\.1|localhost)(:\d+)?(/\S*)?", self.url
        ):
            raise ConfigError(
                "is no https:// address, and a token is not sent in the clear",
                where="GITHUB_API_URL",
                hint=f"Leave it unset for {PUBLIC}.",
            )

    def request(
        self,
        method: str,
        path: str,
        payload: Mapping[str, Any] | None = None,
        *,
        once: bool = False,
    ) -> Answer:
        """Send a request; answers below 500 come back whatever they say.

        Faults of the server or the network and rate limits are waited out, at most
        ``_LONGEST_WAIT_S`` each time and ``_ATTEMPTS`` in all. ``once`` is for what must not be
        done twice: there only rate limits are tried again, since a limited request was not carried
        out.

        Raises:
            NoAnswerError: it stayed so, or for ``once`` it was so.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                answer = self._send(method, path, payload)
            except (OSError, http.client.HTTPException, ValueError) as error:
                wait, why = 2.0 ** (attempt - 1), self._safe(_reason(error))
                done = once
            else:
                limit = self._limited(answer, attempt)
                if limit is None and answer.status < 500:
                    return answer
                why = f"{answer.status}{': ' if answer.message else ''}{self._safe(answer.message)}"
                wait = 2.0 ** (attempt - 1) if limit is None else limit
                done = once and limit is None
            if done or attempt == _ATTEMPTS or wait > _LONGEST_WAIT_S:
                raise self._gone(why, wait)
            self.progress(f"GitHub: {why}; again in {wait:.0f} s")
            self.sleep(wait)
        raise AssertionError("the loop returns or raises")

    def _gone(self, why: str, wait: float) -> NoAnswerError:
        hint = "The report itself is whole; give the same command again later."
        if wait > _LONGEST_WAIT_S:
            hint = f"It asks to wait for {wait:.0f} s. {hint}"
        return NoAnswerError(f"did not answer ({why})", where=self.url, hint=hint)

    def _send(self, method: str, path: str, payload: Mapping[str, Any] | None) -> Answer:
        request = urllib.request.Request(
            self.url.rstrip("/") + path,
            method=method,
            data=None if payload is None else json.dumps(payload).encode(),
            headers={
                "Accept": "application/vnd.github+json",
                "Authorization": f"Bearer {self.token}",
                "Content-Type": "application/json",
                "User-Agent": "pocketship",
                "X-GitHub-Api-Version": "2022-11-28",
            },
        )
        opener = urllib.request.build_opener(_NoRedirect)
        try:
            with opener.open(request, timeout=_TIMEOUT_S) as response:
                return _answer(response.status, response.headers, response.read(_LARGEST_ANSWER))
        except urllib.error.HTTPError as error:
            with error:
                return _answer(error.code, error.headers, error.read(_LARGEST_ANSWER))

    def _limited(self, answer: Answer, attempt: int) -> float | None:
        """Seconds to wait where this is a rate limit, the primary or the secondary; else None."""
        if answer.status not in (403, 429):
            return None
        if (after := answer.headers.get("retry-after", "")).isdecimal():
            return float(after)
        if answer.headers.get("x-ratelimit-remaining") == "0":
            reset = answer.headers.get("x-ratelimit-reset", "")
            return max(1.0, float(reset) - self.now()) if reset.isdecimal() else 60.0
        if answer.status == 429 or "rate limit" in answer.message.lower():
            # GitHub asks for at least a minute, and more each time.
            return min(60.0 * 2.0 ** (attempt - 1), _LONGEST_WAIT_S)
        return None

    def _safe(self, text: str) -> str:
        return text.replace(self.token, "***")


def _answer(status: int, headers: Message, body: bytes) -> Answer:
    try:
        data = json.loads(body) if body else None
    except ValueError:
        # Something between us and GitHub answered, or half of an answer came.
        if status < 300:
            raise
        data = None
    return Answer(status, {name.lower(): value for name, value in headers.items()}, data)


def _reason(error: Exception) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return f"no answer within {_TIMEOUT_S:.0f} s"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    if isinstance(cause, ValueError):
        return "what came is not JSON"
    return str(cause) or type(cause).__name__
