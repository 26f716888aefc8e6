"""A pipeline's files: compressed, exported and verified in a process of its own.

Both sides of a comparison may have a task module of the same name with different content, which one
process could not load. So each side is made by a child, ``python -m deploy.gating.making RUN_FOLDER
PARENT``, in which that side's folders come first. It runs this pocketship's code, whatever the
folder that it works in holds.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from deploy import stored, workspace
from deploy.errors import (
    EXIT_INTERRUPTED,
    CompressError,
    ConfigError,
    DeviceError,
    ExportError,
    ParityError,
    PocketshipError,
)
from deploy.types import Progress
from deploy.workspace import RunFolder

_OURS = Path(__file__).resolve().parent.parent.parent
_GRACE_S = 30.0
_PR_SET_PDEATHSIG = 1
_LEAVES = (ConfigError, CompressError, ExportError, ParityError, DeviceError)
_TIME = re.compile(r"^ *[0-9]+\.[0-9]s ")
_FAILED = "pocketship: "


def is_made(folder: RunFolder) -> bool:
    """Whether every artifact of the run is there as its manifest says, and was verified."""
    try:
        stored.require(folder)
        artifacts = workspace.artifacts_of(folder)
    except PocketshipError:
        return False
    wanted = {
        f"{variant}.{made}"
        for variant in folder.config.variants
        for target in folder.config.targets
        for made in target.formats()
    }
    there = {artifact.name for artifact in artifacts}
    return there == wanted and len(stored.parity(folder, artifacts)) == len(artifacts)


def make(folder: RunFolder, label: str, progress: Progress) -> None:
    """Bring a run folder to where devices would come next; what is there already is kept.

    ``label`` stands before each line of progress. A parity that fails is no error here: it is in
    the folder. Raises what the stages raise, with the child's own words.
    """
    if is_made(folder):
        return
    with _child(folder) as child:
        assert child.stderr is not None
        last = ""
        for line in child.stderr:
            last = line.rstrip("\n")
            if not last.startswith(_FAILED):
                progress(f"{label}: {_TIME.sub('', last)}")
        code = child.wait()
    if code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    if code == 0:
        return
    if last.startswith(_FAILED):
        leaf = next((one for one in _LEAVES if one.exit_code == code), CompressError)
        raise leaf(last.removeprefix(_FAILED), where=label)
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    raise CompressError(
        f"the process that makes it {how}",
        where=label,
        hint=f"{folder.root / 'log.txt'} says more; out of memory is a common cause.",
    )


@contextlib.contextmanager
def _child(folder: RunFolder) -> Iterator[subprocess.Popen[str]]:
    paths = [str(_OURS), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        # A checked-out revision stays as git wrote it.
        "PYTHONDONTWRITEBYTECODE": "1",
        "NO_COLOR": "1",
    }
    child = subprocess.Popen(
        # -P: else a folder `deploy` in the working directory would be taken for ours.
        [sys.executable, "-P", "-m", "deploy.gating.making", str(folder.root), str(os.getpid())],
        cwd=folder.asked.working_folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    try:
        yield child
    finally:
        if child.poll() is None:
            # Its own end by SIGTERM is as clean as by Ctrl-C, which reached it already.
            child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_GRACE_S)
        child.kill()
        child.wait()
        assert child.stderr is not None
        child.stderr.close()


def _end_with(parent: int) -> None:
    """Ask Linux for SIGTERM when the parent dies, so that a killed gate leaves nothing running."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "prctl"):
        return
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        raise KeyboardInterrupt


def main(root: Path, parent: int) -> None:
    """The child: the stages before the devices, on a run folder that its parent made."""
    from deploy import pipeline
    from deploy.console import session

    with session("gate") as ui:
        _end_with(parent)
        folder = workspace.open_run(root)
        with workspace.exclusive(folder):
            ui.log_to(folder.root / "log.txt")
            for stage in (pipeline.run_compress, pipeline.run_export, pipeline.run_verify):
                stage(folder, ui.progress)


if __name__ == "__main__":
    import typer

    try:
        main(Path(sys.argv[1]), int(sys.argv[2]))
    except typer.Exit as ended:
        sys.exit(ended.exit_code)
