"""Keeps one QEMU: the process between a pocketship and its emulated phone.

Run as a script, ``supervisor.py OWNER_PID FOLDER LOCK_FD QEMU ARG...``, with the phone's folder
and the descriptor of its locked lock file. It imports nothing of ours, so that it starts quickly.

QEMU must not outlive the pocketship that started it, even one that was killed with SIGKILL.
Linux can signal a child when its parent dies, but "parent" means the *thread* that forked: a worker
thread's end would kill the phone. So this process, which has one thread, is the parent and
watches the owner: its end shows as a change of our own parent. If this process is killed itself,
that same signal ends QEMU.

On stdin: ``detach`` lets the phone live on without its owner; its end, or SIGTERM, ends the phone.
The lock is held as long as the phone lives, which is how everybody else knows that it does.
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_POLL_S = 0.25
_GRACE_S = 5.0
_BIG_FILES = ("disk.img", "initrd")


class _Ended(Exception):
    """Somebody asked for the end."""


def _ask_to_end(_signum: int, _frame: object) -> None:
    raise _Ended


def _die_with_parent(libc: ctypes.CDLL, parent: int) -> None:
    # SIGTERM and SIGINT go to this process only; it ends QEMU.
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _watch(qemu: subprocess.Popen[bytes], owner: int) -> None:
    """Return when QEMU has ended; raise :class:`_Ended` when it has to."""
    attached = True
    while qemu.poll() is None:
        if not attached:
            qemu.wait()
            return
        if os.getppid() != owner:
            raise _Ended
        readable, _, _ = select.select([0], [], [], _POLL_S)
        if readable:
            said = os.read(0, 64)
            if said != b"detach\n":
                raise _Ended
            attached = False


def _end(qemu: subprocess.Popen[bytes]) -> None:
    qemu.send_signal(signal.SIGCONT)
    qemu.terminate()  # QEMU's clean way out, like its monitor's "quit"
    try:
        qemu.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        qemu.kill()
        qemu.wait()


def main() -> int:
    """Start QEMU, keep it, clean up after it. Returns QEMU's exit code, 0 when it was ended."""
    owner, folder, lock_fd = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    os.set_inheritable(lock_fd, False)
    signal.signal(signal.SIGTERM, _ask_to_end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    libc = ctypes.CDLL(None, use_errno=True)
    own = os.getpid()
    qemu: subprocess.Popen[bytes] | None = None
    try:
        with (folder / "qemu.log").open("wb") as log:
            qemu = subprocess.Popen(
                sys.argv[4:],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=lambda: _die_with_parent(libc, own),  # noqa: PLW1509 (no threads here)
            )
        (folder / "pids.tmp").write_text(f"{own} {qemu.pid}\n")
        (folder / "pids.tmp").replace(folder / "pids")
        _watch(qemu, owner)
    except _Ended:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if qemu is not None:
            _end(qemu)
        shutil.rmtree(folder, ignore_errors=True)
        return 0
    except OSError as error:
        (folder / "qemu.log").write_text(f"{error}\n")
        return 1
    # QEMU ended by itself: its logs are of use, what it needed to run is not.
    for name in _BIG_FILES:
        (folder / name).unlink(missing_ok=True)
    return qemu.returncode if qemu.returncode > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
