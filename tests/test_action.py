"""The composite action and the workflows in docs/ci.md: read, and their steps run by bash here.

pocketship and GitHub's API have stand-ins. None of this has run on GitHub.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from deploy.cli import app
from deploy.report import formats, store
from tests.deploy.report import gate_factory

ROOT = Path(__file__).resolve().parents[1]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
STEPS = {step["name"]: step for step in ACTION["runs"]["steps"]}
PAGE = (ROOT / "docs/ci.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```yaml\n(# \S+)\n(.*?)^```", PAGE, re.M | re.S)
DOCUMENTS = {name.removeprefix("# "): yaml.safe_load(text) for name, text in BLOCKS}
WORKFLOWS = {name: one for name, one in DOCUMENTS.items() if name.startswith(".github/")}


def steps() -> list[tuple[str, dict[str, Any]]]:
    """Every step of the action and of the workflows, with where it stands."""
    found = [(f"action.yml: {name}", step) for name, step in STEPS.items()]
    for name, workflow in WORKFLOWS.items():
        for job in workflow["jobs"].values():
            found += [(f"{name}: {s.get('name', s.get('uses'))}", s) for s in job["steps"]]
    return found


SCRIPTS = [pytest.param(step["run"], id=name) for name, step in steps() if "run" in step]


# --- what it says ---------------------------------------------------------------------------------


def test_the_page_has_the_workflows_and_they_have_limits() -> None:
    assert set(DOCUMENTS) == {
        ".github/workflows/pocketship.yml",
        ".github/workflows/pocketship-comment.yml",
        ".github/workflows/nightly.yml",
        ".gitlab-ci.yml",
    }
    for name, workflow in WORKFLOWS.items():
        assert "permissions" in workflow, name
        assert all("timeout-minutes" in job for job in workflow["jobs"].values()), name
        # YAML reads `on` as true. pull_request_target would run a fork's code with our token.
        assert "pull_request_target" not in str(workflow[True]), name
    assert "None of it has run on GitHub" in PAGE
    assert "NOT YET RUN" in (ROOT / "action.yml").read_text(encoding="utf-8")


def test_only_the_comment_of_our_own_branch_gets_the_token() -> None:
    holders = [name for name, step in STEPS.items() if "token" in str(step).lower()]
    assert holders == ["Comment on the pull request"]
    assert STEPS["Comment on the pull request"]["env"]["GITHUB_TOKEN"] == "${{ inputs.token }}"


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_expression_stands_in_a_script(script: str) -> None:
    """A branch called `$(curl ...)` would be run; as an environment variable it is text."""
    assert "${{" not in script


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_stops_at_its_first_fault_and_quotes_what_it_is_given(script: str) -> None:
    done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    if len(script.splitlines()) > 2:
        assert script.startswith("set -euo pipefail")
    # An expansion outside quotation marks is split into words; here none is meant to be.
    bare = re.sub(r"\"(?:\\.|\$\([^()]*\)|[^\"\\])*\"|'[^']*'", '""', script)
    bare = re.sub(r"case \$\w+ in|\w+=\$\(", "", bare)
    assert not re.findall(r"\$\w|\$\{", bare), bare
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", "-s", "bash", "-"], input=script, text=True, check=True)


def test_every_input_is_described_and_used_and_every_use_is_an_input() -> None:
    inputs = ACTION["inputs"]
    assert all(one["description"].strip() for one in inputs.values())
    assert all(one.get("required") or "default" in one for one in inputs.values())
    used = set(re.findall(r"inputs\.([\w-]+)", str(ACTION["runs"])))
    assert used == set(inputs)
    outputs = set(re.findall(r"steps\.gate\.outputs\.([\w-]+)", str(ACTION)))
    assert outputs == set(ACTION["outputs"])
    for name, step in steps():
        if step.get("uses", "").startswith("OWNER/pocketship@"):
            assert set(step["with"]) <= set(inputs), name
            assert "pipeline" in step["with"], name


def test_foreign_actions_are_githubs_own_and_have_a_version() -> None:
    for name, step in steps():
        if uses := step.get("uses"):
            ours = uses == "OWNER/pocketship@REF"
            assert ours or re.fullmatch(r"actions/[a-z-]+@v\d+", uses), name
        else:
            assert step.get("shell") == "bash" or name.startswith(".github"), name


def options_of(command: str) -> set[str]:
    group: Any = typer.main.get_command(app)
    return {name for param in group.commands[command].params for name in param.opts}


def test_the_commands_and_options_that_are_used_exist() -> None:
    scripts = [param.values[0] for param in SCRIPTS]
    scripts += DOCUMENTS[".gitlab-ci.yml"]["pocketship"]["script"]
    used: dict[str, set[str]] = {}
    for script in scripts:
        text = script.replace("\\\n", " ")
        for name in re.findall(r'(?:"\$POCKETSHIP"|\bpocketship) (gate|report|comment)\b', text):
            used.setdefault(name, set())
        for line in text.splitlines():
            found = re.search(r'(?:"\$POCKETSHIP"|\bpocketship) (gate|report|comment)\b', line)
            name = found[1] if found else "gate" if "options" in line else ""
            if name:
                used[name] |= set(re.findall(r"(?<=[ (])(--[a-z][a-z-]*|-o)", line))
    assert set(used) == {"gate", "report", "comment"}
    for name, options in used.items():
        assert options <= options_of(name), name
    assert {"--reports", "--pipeline", "--device", "--wait", "--serial", "--accepted"} == used[
        "gate"
    ]
    assert set(re.findall(r"--format (\w+)", "".join(scripts))) <= set(formats.FORMATS)


# --- what it does ---------------------------------------------------------------------------------

STAND_IN = """#!/usr/bin/env bash
printf '%q ' "$@" >>"$CALLS"; echo >>"$CALLS"
case $1 in
gate)
    while [ "$1" != --reports ]; do shift; done
    if [ -n "${GATE_JSON:-}" ]; then
        mkdir -p "$2/gate/1"; cp "$GATE_JSON" "$2/gate/1/gate.json"; ln -s 1 "$2/gate/latest"
    fi
    exit "${GATE_CODE:-0}" ;;
report)
    case "$*" in *" -o "*) echo body >"${@: -1}" ;; *) echo "::error title=x::y" ;; esac ;;
comment) exit "${COMMENT_CODE:-0}" ;;
esac
"""


@dataclass
class Runner:
    """What GitHub's runner does with the action's steps, as far as they need it."""

    root: Path
    inputs: dict[str, str]
    env: dict[str, str]
    github: dict[str, str]
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)
    log: str = ""

    def value(self, text: str) -> str:
        def one(found: re.Match[str]) -> str:
            name = found[1].strip()
            if name.startswith("inputs."):
                return self.inputs[name.removeprefix("inputs.")]
            if name.startswith("steps."):
                _, step, _, key = name.split(".", 3)
                return self.outputs.get(step, {}).get(key, "")
            return self.github.get(name.removeprefix("github."), "")

        return re.sub(r"\$\{\{(.*?)\}\}", one, text)

    def holds(self, condition: str) -> bool:
        """`A == 'b' && C != ''`, which is all that the action's conditions are made of."""
        for part in condition.split("&&"):
            name, sign, wanted = re.fullmatch(r"\s*(\S+) (==|!=) '(.*)'\s*", part).groups()  # type: ignore[union-attr]
            if (self.value("${{ " + name + " }}") == wanted) != (sign == "=="):
                return False
        return True

    def run(self) -> int:
        for name, step in STEPS.items():
            if "run" not in step or not self.holds(step.get("if", "a == ''")):
                continue
            self.ran.append(name)
            output = self.root / "output"
            output.write_text("")
            env = {key: self.value(text) for key, text in step.get("env", {}).items()}
            script = self.root / "step.sh"
            script.write_text(step["run"])
            done = subprocess.run(
                ["bash", "--noprofile", "--norc", "-eo", "pipefail", script],
                env={**os.environ, **self.env, **env, "GITHUB_OUTPUT": str(output)},
                cwd=self.root,
                capture_output=True,
                text=True,
            )
            self.log += done.stdout + done.stderr
            lines = output.read_text().splitlines()
            self.outputs[step.get("id", name)] = dict(line.split("=", 1) for line in lines)
            if done.returncode:
                return done.returncode
        return 0

    def calls(self) -> list[list[str]]:
        path = self.root / "calls"
        return [shlex.split(line) for line in path.read_text().splitlines()]


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    program = tmp_path / "bin" / "pocketship"
    program.parent.mkdir()
    program.write_text(STAND_IN)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "temp").mkdir()
    store.write(gate_factory.gate_report(), tmp_path)
    defaults = {name: one.get("default", "") for name, one in ACTION["inputs"].items()}
    return Runner(
        root=tmp_path,
        inputs={**defaults, "pipeline": "pipeline.yaml", "setup": "false", "token": "ghs_x"},
        env={
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "CALLS": str(tmp_path / "calls"),
            "RUNNER_TEMP": str(tmp_path / "temp"),
            "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
            "GATE_JSON": str(tmp_path / "gate.json"),
        },
        github={
            "event_name": "pull_request",
            "repository": "octo/hello",
            "event.pull_request.number": "7",
            "event.pull_request.head.repo.full_name": "octo/hello",
            "server_url": "https://github.com",
            "run_id": "42",
        },
    )


@pytest.mark.parametrize("code", [0, 5, 7, 8, 9])
def test_the_action_ends_as_the_gate_did_and_shows_everything_before(
    runner: Runner, code: int
) -> None:
    runner.env["GATE_CODE"] = str(code)
    assert runner.run() == code
    assert runner.ran[-1] == "Fail where the gate did"
    gate, github, summary, comment, post = runner.calls()
    assert gate[0] == "gate"
    assert gate[-3:] == ["--", "git:HEAD^1", "pipeline.yaml"]
    assert gate[gate.index("--device") + 1] == "emulated-arm64"
    assert github[2:] == ["--format", "github"]
    assert "https://github.com/octo/hello/actions/runs/42" in summary
    assert comment[3] == "comment"
    assert post[:1] + post[2:] == ["comment", "--repo", "octo/hello", "--pull", "7"]
    report = Path(runner.outputs["gate"]["report"])
    assert json.loads((report / "gate.json").read_text())["exit_code"] == 8
    assert (report / "pull.txt").read_text() == "7\n"
    assert runner.outputs["gate"]["exit-code"] == str(code)


def test_where_the_gate_left_no_report_only_its_code_is_left(runner: Runner) -> None:
    runner.env |= {"GATE_JSON": "", "GATE_CODE": "2"}
    assert runner.run() == 2
    assert [call[0] for call in runner.calls()] == ["gate"]


def test_a_pull_request_from_a_fork_is_judged_and_not_commented_on(runner: Runner) -> None:
    runner.github["event.pull_request.head.repo.full_name"] = "mallory/hello"
    runner.env["GATE_CODE"] = "8"
    assert runner.run() == 8
    assert "comment" not in [call[0] for call in runner.calls()]
    assert "a fork" in runner.log


def test_a_comment_that_cannot_be_posted_does_not_hide_the_verdict(runner: Runner) -> None:
    runner.env |= {"GATE_CODE": "9", "COMMENT_CODE": "2"}
    assert runner.run() == 9
    assert "::warning title=pocketship::the comment was not posted" in runner.log


def test_at_night_there_is_no_pull_request(runner: Runner) -> None:
    runner.github |= {"event_name": "schedule", "event.pull_request.number": ""}
    assert runner.run() == 0
    assert [call[0] for call in runner.calls()] == ["gate", "report", "report", "report"]


def test_no_device_and_hostile_inputs_stay_words(runner: Runner) -> None:
    hostile = "$(touch pwned) `touch pwned`; touch pwned; a b*"
    runner.inputs |= {"device": "", "base": hostile, "accepted": hostile, "pipeline": hostile}
    runner.github["repository"] = runner.github["event.pull_request.head.repo.full_name"] = hostile
    assert runner.run() == 0
    gate = runner.calls()[0]
    assert "--device" not in gate
    assert gate[-2:] == [hostile, hostile]
    assert gate[gate.index("--accepted") + 1] == hostile
    assert not (runner.root / "pwned").exists()


def test_without_pocketship_in_the_path_it_says_so(runner: Runner) -> None:
    (runner.root / "bin" / "pocketship").unlink()
    runner.env["PATH"] = "/usr/bin:/bin"
    assert runner.run() == 2
    assert "no pocketship is in PATH" in runner.log
