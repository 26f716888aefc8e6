"""What a clone must hold: pins that fit, targets that exist, no stray files, links that lead."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
MAX_FILE_BYTES = 600_000
TARGETS = {
    *("help", "setup", "demo", "test", "lint", "bench", "bench-compress"),
    "chaos",
    *("phone-image", "clean", "distclean"),
}
SHELL_SCRIPTS = ("scripts/setup.sh", ".ci/run")
WORKFLOWS = ("linux.yml", "android-emulator.yml", "macos-simulator.yml")
NOT_YET_RUN = {"android-emulator.yml", "macos-simulator.yml"}
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/architecture.md")

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def tracked() -> list[Path]:
    """Files that git knows, or would know with the next `git add`."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {}
    for line in filter(None, (line.partition("#")[0].strip() for line in lines)):
        name, separator, version = line.partition("==")
        assert separator, f"constraints.txt: {line!r} pins nothing"
        assert canonicalize_name(name) not in pinned, f"constraints.txt: {name} twice"
        pinned[canonicalize_name(name)] = Version(version)
    return pinned


def requirements() -> list[Requirement]:
    project = PROJECT["project"]
    rows = [*project["dependencies"], *PROJECT["build-system"]["requires"]]
    for extra in project["optional-dependencies"].values():
        rows += extra
    return [Requirement(row) for row in rows]


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_pin_satisfies_requirement(requirement: Requirement) -> None:
    name = canonicalize_name(requirement.name)
    assert name in pins(), f"{name} is not pinned in constraints.txt"
    assert requirement.specifier.contains(pins()[name], prereleases=True)


def test_pins_have_no_local_tag() -> None:
    """`torch==2.13.0+cpu` would refuse every other build of the same version."""
    assert {name: str(pin) for name, pin in pins().items() if pin.local} == {}


def test_licence_is_the_declared_one() -> None:
    assert PROJECT["project"]["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "Version 2.0" in text


def test_changelog_knows_the_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{PROJECT['project']['version']}]" in text


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    # Our own call may come from `make test`: its flags must not reach the inner make.
    environment = {k: v for k, v in os.environ.items() if k not in {"MAKEFLAGS", "MAKELEVEL"}}
    return subprocess.run(
        ["make", *arguments], cwd=ROOT, capture_output=True, text=True, env=environment
    )


def test_help_is_the_default_and_lists_every_target() -> None:
    done = make()
    assert done.returncode == 0, done.stderr
    assert set(re.findall(r"^ +make ([a-z-]+) ", done.stdout, re.M)) >= TARGETS


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_target_can_be_made(target: str) -> None:
    done = make("--dry-run", target)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "target", ["demo", "test", "lint", "bench", "bench-compress", "phone-image"]
)
def test_target_stands_on_setup(target: str) -> None:
    assert make("--dry-run", target).stdout.splitlines()[0] == "scripts/setup.sh"


def test_programs_and_files_that_make_calls_exist() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    for script in re.findall(r"\bscripts/[\w.]+", text):
        assert (ROOT / script).is_file(), script
    for module in re.findall(r"-m ((?:benchmarks|scripts)[\w.]*)", text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module


@pytest.mark.parametrize("script", SHELL_SCRIPTS)
def test_shell_script_is_sound(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK), f"{script} is not executable"
    done = subprocess.run(["bash", "-n", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    if shutil.which("shellcheck"):
        done = subprocess.run(["shellcheck", script], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What scripts/setup.sh needs, in a folder whose name has a space."""
    root = tmp_path / "my checkout"
    (root / "scripts").mkdir(parents=True)
    for name in ("scripts/setup.sh", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, root / name)
    return root


def set_up(root: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script where it can neither install OS packages nor reach a package index."""
    unreachable = {
        "POCKETSHIP_NO_SYSTEM_PACKAGES": "1",
        "POCKETSHIP_PYTHON": sys.executable,
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_FIND_LINKS": "",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_RETRIES": "0",
    }
    return subprocess.run(
        ["bash", str(root / "scripts/setup.sh"), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, **unreachable, **environment},
    )


def make_ready(root: Path) -> Path:
    """An environment as the script leaves it, but for its packages."""
    venv = root / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin/python").symlink_to(sys.executable)
    inputs = [root / name for name in ("pyproject.toml", "constraints.txt", "scripts/setup.sh")]
    content = f"{root.resolve()}\n".encode() + b"".join(path.read_bytes() for path in inputs)
    (venv / ".pocketship-made").touch()
    (venv / ".pocketship-ready").write_text(hashlib.sha256(content).hexdigest() + "\n")
    return venv


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "text"),
    [
        (["--nope"], {}, 2, "unknown option --nope"),
        ([], {"POCKETSHIP_PYTHON": "/bin/false"}, 6, "/bin/false is not a Python 3.11"),
    ],
)
def test_setup_explains_itself(
    checkout: Path, arguments: list[str], environment: dict[str, str], code: int, text: str
) -> None:
    done = set_up(checkout, *arguments, **environment)
    assert done.returncode == code
    assert text in done.stderr
    assert not (checkout / ".venv").exists()


def test_second_setup_does_nothing(checkout: Path) -> None:
    make_ready(checkout)
    done = set_up(checkout)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "setup: ready"


@pytest.mark.slow  # makes a real virtual environment
def test_interrupted_setup_starts_afresh_and_tells_of_the_index(checkout: Path) -> None:
    venv = make_ready(checkout)
    (venv / ".pocketship-installing").touch()
    (venv / "half-a-package").touch()
    done = set_up(checkout)
    assert done.returncode == 7
    assert "starting it afresh" in done.stdout
    assert "index may be out of reach" in done.stderr
    assert not (venv / "half-a-package").exists()
    # The next run must know that this one did not get to its end either.
    assert (venv / ".pocketship-installing").exists()
    assert not (venv / ".pocketship-ready").exists()


def test_setup_leaves_a_foreign_environment_alone(checkout: Path) -> None:
    """A .venv that the script did not make is never removed, whatever is in it."""
    foreign = checkout / ".venv/bin/python"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("#!/bin/sh\nexit 3\n")
    foreign.chmod(0o755)
    done = set_up(checkout)
    assert done.returncode == 7
    assert ".venv is not a Python 3.11 environment" in done.stderr
    assert foreign.read_text() == "#!/bin/sh\nexit 3\n"


def test_setup_without_tools_lists_them_and_goes_on(checkout: Path, tmp_path: Path) -> None:
    """A PATH that holds only what the script itself calls: no compiler, no QEMU, no apt-get."""
    bare = tmp_path / "bare"
    bare.mkdir()
    for tool in ("bash", "dirname", "cat", "cut", "tr", "awk", "grep", "id", "mkdir", "sha256sum"):
        (bare / tool).symlink_to(str(shutil.which(tool)))
    make_ready(checkout)
    done = set_up(checkout, PATH=str(bare))
    assert done.returncode == 0, done.stderr
    assert "the emulated phone: runs are host only" in done.stdout
    assert done.stdout.splitlines()[-1] == "setup: ready"


@pytest.mark.parametrize("code", [0, 2])
def test_ci_ends_with_what_pytest_said(tmp_path: Path, code: int) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/run", tmp_path / ".ci/run")
    fake = tmp_path / "bin/make"
    fake.parent.mkdir()
    closing = "=== 1 failed, 2 passed, 3 skipped in 4.56s (0:00:04) ==="
    fake.write_text(
        f"#!/bin/sh\necho '{closing}'\necho 'make: *** [Makefile:1: test]'\nexit {code}\n"
    )
    fake.chmod(0o755)
    done = subprocess.run(
        [tmp_path / ".ci/run"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{fake.parent}{os.pathsep}{os.environ['PATH']}"},
    )
    assert done.returncode == code
    assert done.stdout.splitlines()[-1] == closing


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflow_is_whole(name: str) -> None:
    text = (ROOT / ".github/workflows" / name).read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert all(("uses" in step) != ("run" in step) for step in steps)
    for step in steps:
        if action := step.get("uses"):
            assert re.fullmatch(r"[\w.-]+/[\w.-]+@v\d+", action), f"{action}: pin a major version"
    assert ("not yet run" in workflow["name"]) == (name in NOT_YET_RUN)
    # Without a limit a hung phone costs six hours.
    assert all("timeout-minutes" in job for job in workflow["jobs"].values())


def test_no_large_files() -> None:
    large = {str(p.relative_to(ROOT)): p.stat().st_size for p in tracked()}
    assert {name: size for name, size in large.items() if size > MAX_FILE_BYTES} == {}


def test_no_binary_files_but_pictures_of_pages() -> None:
    def is_picture(path: Path) -> bool:
        """Screenshots that docs show (docs/reports.md), small enough to be renewed now and then."""
        shown = path.parent == ROOT / "docs/images" and path.suffix == ".png"
        return shown and path.stat().st_size < 200_000

    def is_text(path: Path) -> bool:
        data = path.read_bytes()
        try:
            data.decode("utf-8")
        except UnicodeDecodeError:
            return False
        return b"\0" not in data

    binary = [path for path in tracked() if not (is_text(path) or is_picture(path))]
    assert [str(path.relative_to(ROOT)) for path in binary] == []


def test_links_lead_to_files() -> None:
    broken = []
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            place = target.partition("#")[0]
            if place and "://" not in place and not ((ROOT / page).parent / place).exists():
                broken.append(f"{page}: {target}")
    assert broken == []
