"""Who made a report, with what, on which machine."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from deploy import __version__
from deploy.workspace import RunFolder

TOOLS = ("torch", "torchao", "executorch", "onnx", "onnxruntime", "onnxscript", "coremltools")


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
