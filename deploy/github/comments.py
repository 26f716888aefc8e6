"""One comment on a pull request that is edited, not repeated.

It is known by a hidden mark on its first line and by its author: a comment of somebody else that
has the mark is never touched, since its author could change afterwards what it says of a build.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from deploy.errors import ConfigError
from deploy.github.api import Answer, Api, NoAnswerError

ACTIONS = "github-actions[bot]"
MAX_CHARACTERS = 65_536
_PAGE = 100
_PAGES = 100
_ROUNDS = 3


@dataclass(frozen=True)
class Pull:
    """A pull request: ``owner/name`` of its repository, and its number."""

    repo: str
    number: int

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9-]{1,100}/(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}", self.repo):
            raise ConfigError(
                f"{self.repo!r} is no repository", where="--repo", hint="Give it as owner/name."
            )
        if self.number < 1:
            raise ConfigError(f"{self.number} is no pull request", where="--pull")

    def __str__(self) -> str:
        return f"{self.repo}#{self.number}"

    @property
    def comments(self) -> str:
        """Path of its comments; to this API a pull request is an issue."""
        return f"/repos/{self.repo}/issues/{self.number}/comments"

    def comment(self, number: int) -> str:
        """Path of one of them."""
        return f"/repos/{self.repo}/issues/comments/{number}"


@dataclass(frozen=True)
class Posted:
    """What became of a comment: its address, and what was done for that."""

    url: str
    what: Literal["created", "edited", "unchanged"]
    removed: int = 0


@dataclass(frozen=True)
class _Comment:
    id: int
    author: str
    body: str
    url: str


def post(api: Api, pull: Pull, body: str, mark: str) -> Posted:
    """Make ``body`` the one comment with ``mark`` on ``pull``; ``body`` begins with ``mark``.

    Where two jobs ran at once and both created one, the oldest stays and the others are removed.
    Whoever comes last does so; each looks again after it created one.

    Raises:
        ConfigError: GitHub refuses: the token, its permissions, the repository, the text.
        NoAnswerError: GitHub does not answer.
    """
    if not mark or not body.startswith(mark):
        raise ValueError("the body begins with its mark")
    if len(body) > MAX_CHARACTERS:
        raise ConfigError(f"has {len(body):,} characters, GitHub takes {MAX_CHARACTERS:,}")
    author = _author(api)
    created: _Comment | None = None
    for round_ in range(_ROUNDS):
        mine = _mine(api, pull, author, mark)
        if not mine and created is None:
            try:
                created = _create(api, pull, body)
            except NoAnswerError:
                if round_ == _ROUNDS - 1:
                    raise
                continue  # It may be there by now: look again before creating another.
            author = created.author  # A GitHub App's own name can only be known from what it wrote.
            mine = _mine(api, pull, author, mark)
        if created is not None and created.id not in {one.id for one in mine}:
            mine.append(created)  # A list may be older than what was just created.
        keep, *others = sorted(mine, key=lambda one: one.id)
        if (what := _made_so(api, pull, keep, body)) is None:
            created = None if created and created.id == keep.id else created
            continue  # Somebody removed it meanwhile.
        removed = sum(_removed(api, pull, one) for one in others)
        new = created is not None and created.id == keep.id
        return Posted(keep.url, "created" if new else what, removed)
    raise ConfigError("its comment is removed again and again", where=str(pull))


def _author(api: Api) -> str:
    answer = api.request("GET", "/user")
    if answer.status == 200 and isinstance(answer.data, dict):
        return str(answer.data.get("login", ""))
    if answer.status == 401:
        raise _refusal(answer, "GITHUB_TOKEN")
    return ACTIONS  # The token of an app, as Actions gives one, has no user behind it (403).


def _mine(api: Api, pull: Pull, author: str, mark: str) -> list[_Comment]:
    found: list[_Comment] = []
    for page in range(1, _PAGES + 1):
        answer = api.request("GET", f"{pull.comments}?per_page={_PAGE}&page={page}")
        if answer.status != 200 or not isinstance(answer.data, list):
            raise _refusal(answer, str(pull))
        comments = [_comment(item) for item in answer.data]
        found += [
            one for one in comments if one.author == author and one.body.split("\n")[0] == mark
        ]
        if 'rel="next"' not in answer.headers.get("link", ""):
            break
    return found


def _create(api: Api, pull: Pull, body: str) -> _Comment:
    answer = api.request("POST", pull.comments, {"body": body}, once=True)
    if answer.status != 201:
        raise _refusal(answer, str(pull))
    return _comment(answer.data)


def _made_so(
    api: Api, pull: Pull, comment: _Comment, body: str
) -> Literal["edited", "unchanged"] | None:
    """Give ``comment`` the body; None where it is gone."""
    if comment.body == body.replace("\r\n", "\n"):
        return "unchanged"
    answer = api.request("PATCH", pull.comment(comment.id), {"body": body})
    if answer.status == 404:
        return None
    if answer.status != 200:
        raise _refusal(answer, str(pull))
    return "edited"


def _removed(api: Api, pull: Pull, comment: _Comment) -> bool:
    answer = api.request("DELETE", pull.comment(comment.id))
    if answer.status not in (204, 404):  # 404: another job was quicker.
        raise _refusal(answer, str(pull))
    return answer.status == 204


def _comment(item: Any) -> _Comment:
    if not isinstance(item, dict) or not isinstance(item.get("id"), int):
        raise ConfigError(
            "did not answer with a comment", where="GitHub", hint="Is GITHUB_API_URL right?"
        )
    user = item.get("user")  # None where the account is gone.
    author = user.get("login") if isinstance(user, dict) else ""
    body = str(item.get("body") or "").replace("\r\n", "\n")
    return _Comment(item["id"], str(author), body, str(item.get("html_url") or ""))


def _refusal(answer: Answer, where: str) -> ConfigError:
    told = f" ({answer.status}{': ' if answer.message else ''}{answer.message})"
    moved = answer.status in (301, 302, 307, 308)
    what, hint = {
        401: ("the token is refused", "It is wrong or has expired."),
        403: (
            "the token may not comment here",
            "The job needs `permissions: pull-requests: write`; the token of a pull request from "
            "a fork never has it: docs/ci.md says what to do.",
        ),
        404: (
            "there is no such repository or pull request, or the token may not see it",
            "Compare --repo and --pull with its address.",
        ),
        410: ("it was deleted", ""),
        422: ("GitHub does not take this text", ""),
    }.get(answer.status, ("GitHub refuses", ""))
    if moved:
        what, hint = "the repository has moved", "Give --repo its name of today."
    return ConfigError(what + told, where=where, hint=hint)
