"""Writes docs/walkthrough.md: a regression, from red to green, with what the commands really print.

    python -m scripts.walkthrough           make the page anew
    python -m scripts.walkthrough --check   make it, and compare it with the one that is there

It copies examples/regression into a Git repository of its own, changes the model there as
colleagues might, and runs the commands on the emulated phone (docs/emulated-phone.md). What differs
from run to run is left out: times, folders, and the last digits of instruction counts, which vary
by 0.02 %.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "walkthrough.md"
EXAMPLE = ROOT / "examples" / "regression"
MODEL = "keyword_net.py"
GATE = "pocketship gate git:main pipeline.yaml --pipeline pipeline.yaml --device emulated-arm64"
FILES_ONLY = "pocketship gate git:main pipeline.yaml --pipeline pipeline.yaml"
REPORT = "reports/gate/latest"
ACCEPTED = "pocketship-accepted.yaml"

_FUSED = "        self.activation = nn.ReLU6()\n"
_LOST = "        self.activation = Capped()\n"
_CAPPED = '''class Capped(nn.Module):
    """ReLU6 without its limit of 6 written into PyTorch: equal for every input."""

    def __init__(self, limit: float = 6.0) -> None:
        super().__init__()
        self.limit = limit

    def forward(self, x: Tensor) -> Tensor:
        {body}


'''
_BY_HAND = "return x.relu() - (x - self.limit).relu()"
_AS_CLAMP = "return x.clamp(0, self.limit)"


def lose_the_activation(model: str) -> str:
    """The colleague's change: an activation whose limit can be set, put together from two ReLUs."""
    _, before, rest = model.partition("class Block(")
    changed = model.replace(before + rest, _CAPPED.format(body=_BY_HAND) + before + rest)
    assert changed.count(_FUSED) == 1
    return changed.replace(_FUSED, _LOST)


def mend(model: str) -> str:
    """The same with one operation, which becomes one with the convolution."""
    assert model.count(_BY_HAND) == 1
    return model.replace(_BY_HAND, _AS_CLAMP)


_LAYERS = "Block(1, 16, 2), Block(16, 32, 2), Block(32, 32, 1)"


def add_a_layer(_: str) -> str:
    """Another colleague's change, from what is on ``main``: a convolution more."""
    model = (EXAMPLE / MODEL).read_text(encoding="utf-8")
    assert model.count(f"({_LAYERS})") == 1
    more = f"(\n            {_LAYERS}, Block(32, 32, 1)\n        )"
    return model.replace(f"({_LAYERS})", more)


def let_it_end(accepted: str) -> str:
    """The file of accepted changes, when their last day is over."""
    assert accepted.count("2099-12-31") >= 1
    return accepted.replace("2099-12-31", "2025-12-31")


@dataclass(frozen=True)
class Command:
    """A command line of the page, and the exit code with which it has to end."""

    words: str
    exit_code: int = 0


@dataclass(frozen=True)
class Edit:
    """A change of a file, the model's unless another is named."""

    change: Callable[[str], str]
    file: str = MODEL


Part = str | Command | Edit

PARTS: tuple[Part, ...] = (
    """# A regression, from red to green

Made by `python -m scripts.walkthrough`: every output below is what the command printed. Run it
again where the emulated phone runs ([emulated-phone.md](emulated-phone.md)). Progress (standard
error) is not shown; times and folders are replaced by `...`, and the last digits of instruction
counts, and of their changes below 0.1 %, by `x`: they vary by 0.02 % from one time to the next.

`examples/regression` holds a small keyword-spotting network and its pipeline, which makes an
int8 model for ExecuTorch. It is in a Git repository; branch `main` is what ships. The weights
are random: this is about cost.

## A change that looks harmless

A colleague wants an activation whose limit can be set, and writes ReLU6 by hand. It is equal
for every input, and every test of the model's outputs stays green.
""",
    Edit(lose_the_activation),
    Command("git diff --unified=0 --no-color --no-prefix"),
    """## Red

The gate makes both versions with the same pipeline, checks that each export computes what its
program computes, and runs them in turn in fresh processes on one phone:
""",
    Command(GATE, exit_code=8),
    """Every convolution lost its fused activation: two ReLUs and a subtraction each, as operators
of their own. The outputs are as right as before (parity passes); the phone works half as much
again. Exit code 8 fails the build.

On GitHub the same is annotations (and a comment, [ci.md](ci.md)):
""",
    Command(f"pocketship report {REPORT} --format github"),
    """## Green

The limit can be set with one operation as well, which becomes part of the convolution again:
""",
    Edit(mend),
    Command("git diff --unified=0 --no-color --no-prefix"),
    Command(GATE),
    """The same bytes and the same instructions as `main`: the change may go in.

## A change that costs something, on purpose

Another colleague, again from what is on `main`, wants a convolution more:
""",
    Edit(add_a_layer),
    Command("git diff --unified=0 --no-color --no-prefix"),
    Command(GATE, exit_code=8),
    """It is all as the gate says, and it is wanted. So somebody signs it off, by name, with a
reason and a last day, in a file of the repository that is reviewed like code
([accepted.md](accepted.md)). The day is far away so that this page stays true; one of your own
should be a few weeks off, until `main` has the change and the next comparison is against the new
figures.
""",
    Command(
        f"pocketship accept {REPORT} --reason 'a convolution more, for accuracy in noise' "
        "--by 'A Colleague' --since 2025-01-01 --until 2099-12-31"
    ),
    Command(f"cat {ACCEPTED}"),
    """The same gate is green now. It does not call the figures equal: each says what was accepted
by whom, and the last lines name what is in force. (`gate: {accepted: FILE}` in the pipeline file
does the same as the option.)
""",
    Command(f"{GATE} --accepted {ACCEPTED}"),
    """When its last day is over, an entry lets nothing pass any more. Below, the days in the file
were changed to 2025-12-31; bytes and MACs need no phone to be compared, so none is named:
""",
    Edit(let_it_end, file=ACCEPTED),
    Command(f"{FILES_ONLY} --accepted {ACCEPTED}", exit_code=8),
)


def main() -> int:
    """Make the page; 0 where it is as it was, or was written."""
    check = "--check" in sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="walkthrough-") as folder:
        page = walk(Path(folder))
    if not check:
        PAGE.write_text(page, encoding="utf-8")
        return 0
    if page == PAGE.read_text(encoding="utf-8"):
        return 0
    print(page)
    print("docs/walkthrough.md is not what the commands print now", file=sys.stderr)
    return 1


def walk(folder: Path) -> str:
    """The page, from commands that run in ``folder``; ``RuntimeError`` where one ends otherwise."""
    here = repository(folder)
    blocks = []
    for part in PARTS:
        if isinstance(part, Edit):
            file = here / part.file
            file.write_text(part.change(file.read_text(encoding="utf-8")), encoding="utf-8")
        elif isinstance(part, Command):
            blocks.append(_shown(part, here))
        else:
            blocks.append(part.strip())
    return "\n\n".join(blocks) + "\n"


def repository(folder: Path) -> Path:
    """The example, committed: always as the same commit, since its time and author are fixed."""
    here = folder / "keyword_net"
    shutil.copytree(EXAMPLE, here, ignore=shutil.ignore_patterns("__pycache__", "reports"))
    (here / ".gitignore").write_text("__pycache__/\nreports/\n", encoding="utf-8")
    git = ("git", "-c", "core.autocrlf=false", "-c", "commit.gpgsign=false")
    for words in (
        ("init", "--quiet", "--initial-branch", "main"),
        ("add", "."),
        ("commit", "--quiet", "--message", "A network that spots keywords"),
    ):
        subprocess.run([*git, *words], cwd=here, check=True, env=environment())
    return here


def environment() -> dict[str, str]:
    """The user's, with a fixed author and this checkout's pocketship."""
    who = {f"GIT_{role}_NAME": "A Colleague" for role in ("AUTHOR", "COMMITTER")}
    who |= {f"GIT_{role}_EMAIL": "colleague@example.org" for role in ("AUTHOR", "COMMITTER")}
    who |= {f"GIT_{role}_DATE": "2026-01-01T12:00:00Z" for role in ("AUTHOR", "COMMITTER")}
    quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_PAGER": "cat", "NO_COLOR": "1"}
    return {**os.environ, **who, **quiet, "PYTHONPATH": str(ROOT)}


def _shown(command: Command, here: Path) -> str:
    words = shlex.split(command.words)
    if words[0] == "pocketship":
        words[:1] = [sys.executable, "-m", "deploy.cli"]
    print(f"$ {command.words}", file=sys.stderr)
    done = subprocess.run(
        words, cwd=here, env=environment(), stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != command.exit_code:
        raise RuntimeError(
            f"{command.words} ended with {done.returncode}, not {command.exit_code}:\n{done.stdout}"
        )
    lines = scrubbed(done.stdout, here).splitlines()
    kind = "diff" if words[0] == "git" else "console"
    shown = [f"$ {command.words}", *lines] if kind == "console" else lines
    if command.exit_code:
        shown += ["$ echo $?", str(command.exit_code)]
    return "\n".join([f"```{kind}", *shown, "```"])


def scrubbed(text: str, here: Path) -> str:
    """``text`` without what differs from one run to the next."""
    text = text.replace(f"{here.resolve()}{os.sep}", "").replace(f"{here}{os.sep}", "")
    text = re.sub(r"\b\d{8}-\d{6}(-\d+)?\b", "...", text)
    text = re.sub(r"^index .*\n", "", text, flags=re.M)
    # Equal or not by some thousandths of a per cent is chance.
    allowed = r"[\d,]+ instructions are let pass"
    chance = rf"(?<=instructions: exact: )(?:[+-]0\.0\d* %, {allowed}|the same)$"
    text = re.sub(chance, "±0.0x %, 12,000 instructions are let pass", text, flags=re.M)
    # 354,592 -> 354,xxx wherever instructions are told; 0.02 % may change the fourth digit.
    told = re.compile(r"[\d,]+(?:\.\d+)?(?: → [\d,]+(?:\.\d+)?)*(?= instructions(?! are let))")
    text = told.sub(lambda found: re.sub(r",\d{3}(\.\d+)?(?!\d|,\d)", ",xxx", found[0]), text)
    # What was accepted of instructions is a multiple of such a count.
    factor = r"(\d\.\d)\d+(?= x of base|x until)"
    lines = [
        re.sub(factor, r"\1xx", line) if "instructions" in line else line
        for line in text.splitlines(keepends=True)
    ]
    return re.sub(r"(metric: instructions\n +up_to: \d\.\d)\d+", r"\1xx", "".join(lines))


if __name__ == "__main__":
    sys.exit(main())
