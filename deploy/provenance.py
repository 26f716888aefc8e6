"""Who made a report, with what, on which machine."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from deploy import __version__
from deploy.workspace import RunFolder

TOOLS = ("torch", "torchao", "executorch", "onnx", "onnxruntime", "onnxscript", "coremltools")

BRANCH_VARIABLES = (
    "GITHUB_REF_NAME",
    "CI_COMMIT_REF_NAME",
    "BUILDKITE_BRANCH",
    "CIRCLE_BRANCH",
    "BRANCH_NAME",
)
"""Where CI systems, which check commits out without a branch, name it."""


def tools() -> dict[str, str]:
    """Versions of the packages that take part; a missing one is said, not left out."""
    return {"pocketship": __version__, **versions(TOOLS)}


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of Python and of these packages."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def machine() -> dict[str, str]:
    """What this machine is, without its name or its user's."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "cpu": _cpu() or "unknown",
        "cpu_count": str(_cpu_count()),
    }


def commit(folder: RunFolder) -> str | None:
    """The git commit of the pipeline file's checkout, with ``+`` where it has changes."""
    return commit_of(Path(folder.asked.pipeline_file).parent)


def commit_of(where: Path) -> str | None:
    """The git commit of the checkout that holds ``where``, with ``+`` where it has changes."""
    head = _git(where, "rev-parse", "HEAD")
    if not head:
        return None
    return head + ("+" if _git(where, "status", "--porcelain", "--untracked-files=no") else "")


def branch(folder: RunFolder) -> str:
    """The branch of the pipeline file's checkout, empty where nobody knows it."""
    return branch_of(Path(folder.asked.pipeline_file).parent, os.environ)


def branch_of(where: Path, environment: Mapping[str, str]) -> str:
    """The branch of the checkout that holds ``where``; of a detached one, as the CI says.

    A pull request on GitHub is ``pull/<number>``: its author chose the name of its branch, which
    may be that of one of ours.
    """
    reference = environment.get("GITHUB_REF", "").split("/")
    if reference[:2] == ["refs", "pull"] and len(reference) > 2:
        return f"pull/{reference[2]}"
    if name := _git(where, "symbolic-ref", "--quiet", "--short", "HEAD"):
        return name
    if not _git(where, "rev-parse", "HEAD"):
        return ""
    return next(filter(None, (environment.get(key) for key in BRANCH_VARIABLES)), "")


def _git(where: Path, *words: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(where), *words],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _cpu_count() -> int:
    # macOS has no affinity; elsewhere a container often has fewer processors than the machine.
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _cpu() -> str | None:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or None
    for line in text.splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or None
