"""One comment, edited and not repeated; against a server on this machine, never against GitHub."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.errors import ConfigError
from deploy.github.api import Api, NoAnswerError
from deploy.github.comments import MAX_CHARACTERS, Posted, Pull, post
from tests.deploy.github.fake_github import BOT, TOKEN, FakeGitHub, Fault, serving

MARK = "<!-- pocketship-comment: gate phone -->"
OTHER = "<!-- pocketship-comment: gate phone 2 -->"
OLD, NEW = f"{MARK}\nold\n", f"{MARK}\nnew\n"
PULL = Pull("octo/hello", 7)


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGitHub]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as server:
        yield server


class Waits(list[float]):
    """Stands for time.sleep, and says how long it was to be."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def api(github: FakeGitHub, waits: Waits | None = None, token: str = TOKEN) -> Api:
    return Api(token, github.url, sleep=Waits() if waits is None else waits, now=lambda: 1000.0)


def say(github: FakeGitHub, body: str = NEW, waits: Waits | None = None) -> Posted:
    return post(api(github, waits), PULL, body, MARK)


def test_the_first_is_created_and_the_next_edits_it(github: FakeGitHub) -> None:
    github.add("hello", "ada")
    assert say(github, OLD).what == "created"
    posted = say(github)
    assert posted.what == "edited"
    assert posted.url.endswith(f"#issuecomment-{github.comments[1]['id']}")
    assert github.bodies() == ["hello", NEW]
    assert say(github).what == "unchanged"
    assert github.count("PATCH") == 1


def test_the_headers_are_those_that_github_asks_for(github: FakeGitHub) -> None:
    say(github)
    for sent in github.headers:
        assert sent["Accept"] == "application/vnd.github+json"
        assert sent["X-Github-Api-Version"] == "2022-11-28"
        assert sent["User-Agent"]


def test_it_is_found_on_a_later_page(github: FakeGitHub) -> None:
    for number in range(250):
        github.add(f"comment {number}", "ada")
    github.add(OLD)
    github.add("a last word", "ada")
    assert say(github).what == "edited"
    assert github.count("POST") == 0


def test_a_mark_of_somebody_else_or_of_another_key_is_left_alone(github: FakeGitHub) -> None:
    github.add(OLD, "mallory")
    github.add(f"> {OLD}")
    github.add(f"{OTHER}\nanother phone")
    github.add(f"{MARK} and more on this line")
    before = github.bodies()
    assert say(github).what == "created"
    assert github.bodies() == [*before, NEW]


def test_a_comment_whose_account_is_gone_does_no_harm(github: FakeGitHub) -> None:
    github.add(OLD)["user"] = None
    github.add("")["body"] = None
    assert say(github).what == "created"


def test_a_persons_token_edits_what_this_person_wrote(github: FakeGitHub) -> None:
    github.login = github.author = "ada"
    github.add(OLD, BOT)
    mine = github.add(OLD)
    assert say(github).what == "edited"
    assert mine["body"] == NEW
    assert github.bodies() == [OLD, NEW]


def test_another_app_learns_its_name_from_what_it_wrote(github: FakeGitHub) -> None:
    github.author = "our-app[bot]"
    mine = github.add(OLD)
    assert say(github) == Posted(mine["html_url"], "edited", removed=1)
    assert github.bodies() == [NEW]


def test_several_of_the_same_mark_become_one(github: FakeGitHub) -> None:
    first = github.add(OLD)
    github.add("between", "ada")
    github.add(OLD)
    github.add(NEW)
    assert say(github) == Posted(first["html_url"], "edited", removed=2)
    assert github.bodies() == [NEW, "between"]


@pytest.mark.parametrize("jobs", [2, 5])
def test_jobs_at_the_same_time_leave_one(github: FakeGitHub, jobs: int) -> None:
    """All see an empty list before any of them writes: the worst case."""
    seen = threading.Barrier(jobs)
    waited: set[int] = set()

    def before(method: str, _path: str) -> None:
        if method == "POST" and threading.get_ident() not in waited:
            waited.add(threading.get_ident())
            seen.wait(timeout=20)

    github.before = before
    errors: list[Exception] = []

    def job() -> None:
        try:
            say(github)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=job) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert errors == []
    assert github.count("POST") == jobs
    assert github.bodies() == [NEW]


def test_one_that_is_removed_meanwhile_is_made_again(github: FakeGitHub) -> None:
    github.add(OLD)

    def before(method: str, _path: str) -> None:
        if method == "PATCH":
            github.comments.clear()

    github.before = before
    assert say(github).what == "created"
    assert github.bodies() == [NEW]


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
@pytest.mark.parametrize("status", [0, 500, 502, 503])
def test_a_passing_fault_is_waited_out(github: FakeGitHub, method: str, status: int) -> None:
    github.add(OLD)
    github.add(OLD)
    github.faults = [Fault(method, status), Fault(method, status)]
    waits = Waits()
    assert say(github, waits=waits).what == "edited"
    assert github.bodies() == [NEW]
    assert waits == [1, 2]


@pytest.mark.parametrize("status", [0, 502])
@pytest.mark.parametrize("done", [True, False])
def test_a_fault_while_creating_never_makes_two(
    github: FakeGitHub, status: int, done: bool
) -> None:
    """Whether GitHub created it before it failed is found out by looking."""
    github.faults = [Fault("POST", status, done=done)]
    say(github)
    assert github.bodies() == [NEW]
    assert github.count("POST") == (1 if done else 2)


def test_a_fault_that_stays_is_one_line(github: FakeGitHub) -> None:
    github.faults = [Fault("GET", 503, message="Unicorn!") for _ in range(9)]
    waits = Waits()
    with pytest.raises(NoAnswerError) as caught:
        say(github, waits=waits)
    assert "503: Unicorn!" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert waits == [1, 2, 4, 8]


@pytest.mark.parametrize(
    ("status", "headers", "message", "wait"),
    [
        (429, {"Retry-After": "7"}, "", 7),
        (403, {"Retry-After": "7"}, "You have exceeded a secondary rate limit", 7),
        (403, {}, "You have exceeded a secondary rate limit. Please wait.", 60),
        (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1042"}, "", 42),
        (429, {}, "", 60),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_rate_limit_is_waited_out_as_github_asks(
    github: FakeGitHub, method: str, status: int, headers: dict[str, str], message: str, wait: int
) -> None:
    github.faults = [Fault(method, status, headers, message)]
    waits = Waits()
    assert say(github, waits=waits).what == "created"
    assert waits == [wait]
    assert github.bodies() == [NEW]


def test_a_limit_of_an_hour_is_not_waited_out(github: FakeGitHub) -> None:
    github.faults = [
        Fault("GET", 403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "4600"}, "")
    ]
    waits = Waits()
    with pytest.raises(NoAnswerError, match="asks to wait for 3600 s"):
        say(github, waits=waits)
    assert waits == []


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault("POST", 403, message="Resource not accessible"), "permissions: pull-requests"),
        (Fault("POST", 404, message="Not Found"), "no such repository or pull request"),
        (Fault("POST", 410, message="gone"), "410: gone"),
        (Fault("POST", 422, message="Validation Failed"), "does not take this text"),
        (Fault("POST", 418, message="teapot"), "GitHub refuses (418: teapot)"),
        (Fault("POST", 301, {"Location": "/elsewhere"}), "has moved"),
    ],
)
def test_a_refusal_is_one_line_and_final(github: FakeGitHub, fault: Fault, words: str) -> None:
    github.faults = [fault]
    with pytest.raises(ConfigError) as caught:
        say(github)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert github.count("POST") == 1


def test_the_token_does_not_follow_a_redirect(github: FakeGitHub) -> None:
    with serving() as elsewhere:
        github.faults = [Fault("POST", 307, {"Location": f"{elsewhere.url}/x"})]
        with pytest.raises(ConfigError, match="moved"):
            say(github)
        assert elsewhere.requests == []


def test_a_wrong_token_is_one_line_without_it(github: FakeGitHub) -> None:
    wrong = "ghp_wrong0wrong0wrong"
    with pytest.raises(ConfigError, match=r"token is refused.*Bad credentials") as caught:
        post(api(github, token=wrong), PULL, NEW, MARK)
    assert wrong not in str(caught.value)
    assert wrong not in repr(api(github, token=wrong))


def test_another_repository_is_one_line(github: FakeGitHub) -> None:
    with pytest.raises(ConfigError, match=r"octo/other#7: there is no such"):
        post(api(github), Pull("octo/other", 7), NEW, MARK)


def test_a_server_that_is_not_there(github: FakeGitHub) -> None:
    gone = Api(TOKEN, "http://127.0.0.1:1", sleep=Waits())
    with pytest.raises(NoAnswerError, match=r"127\.0\.0\.1:1: did not answer \(Connection refused"):
        post(gone, PULL, NEW, MARK)


@pytest.mark.parametrize("token", ["", "two words", "line\r\nX-Injected: yes", "naïve"])
def test_what_is_no_token_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(ConfigError, match="GITHUB_TOKEN") as caught:
        Api(token)
    assert not token or token not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://api.github.com",
        "http://127.0.0.1.evil.example",
        "ftp://x",
        "https://",
        "https://user@x",
        "file:///etc/passwd",
    ],
)
def test_a_token_is_sent_over_https_only(url: str) -> None:
    with pytest.raises(ConfigError, match="GITHUB_API_URL"):
        Api(TOKEN, url)


@pytest.mark.parametrize(
    "repo",
    ["", "octo", "octo/", "/hello", "octo/hello/x", "octo/..", "o c/x", "octo/he?llo", "a/b\n"],
)
def test_what_is_no_repository_is_refused(repo: str) -> None:
    with pytest.raises(ConfigError, match="--repo"):
        Pull(repo, 7)


def test_a_body_that_github_would_refuse_is_not_sent(github: FakeGitHub) -> None:
    with pytest.raises(ConfigError, match="GitHub takes 65,536"):
        say(github, MARK + "\n" + "x" * MAX_CHARACTERS)
    assert github.requests == []


# --- the command ----------------------------------------------------------------------------------


def test_the_command_posts_and_never_prints_the_token(
    github: FakeGitHub, call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "comment.md"
    file.write_text(NEW)
    words = ("comment", file, "--repo", "octo/hello", "--pull", "7")
    monkeypatch.delenv("GITHUB_TOKEN", raising=False)
    assert "GITHUB_TOKEN: is not set" in call(*words).last
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    monkeypatch.setenv("GITHUB_API_URL", github.url)
    answer = call(*words)
    assert answer.code == 0, answer.err
    assert answer.out == f"created {github.comments[0]['html_url']}\n"
    assert TOKEN not in answer.out + answer.err
    assert github.bodies() == [NEW]


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "cannot be read"), (b"\xff", "not UTF-8"), (b"hello", "no mark on its first line")],
)
def test_a_file_that_is_no_comment_is_one_line(
    call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, words: str
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    file = tmp_path / "comment.md"
    if content is not None:
        file.write_bytes(content)
    answer = call("comment", file, "--repo", "octo/hello", "--pull", "7")
    assert answer.code == 2
    assert words in answer.last
