"""Starting, finding and stopping emulated phones.

One folder a phone, ``<state>/phones/<id>/``: ``lock`` (held while it lives), ``pids``,
``phone.json`` (once it answers), ``console.log``, ``qemu.log``, ``qmp.sock``, ``disk.img``,
``initrd``. :mod:`deploy.emulator.supervisor` owns QEMU and this folder's end.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.emulator import boot, disk, guest, image, qmp
from deploy.emulator.keys import ensure_key, public_path, read_public
from deploy.emulator.packages import require_tool
from deploy.errors import DeviceError
from deploy.files import write_text
from deploy.paths import state_dir
from deploy.types import DeviceProfile, EmulatorSpec, Progress, silent

_SUPERVISOR = Path(__file__).resolve().parent / "supervisor.py"
_ADB_PORT = 5555
_STOP_S = 15.0
_KEPT_LOGS = 5


@dataclass(frozen=True)
class Phone:
    """A running emulated phone.

    ``serial`` is its ADB address, ``profile`` its profile's name; ``icount``: its clock counts
    instructions; ``detached``: it outlives the process that started it.
    """

    serial: str
    profile: str
    icount: bool
    detached: bool
    image: str
    started_utc: str
    supervisor_pid: int
    qemu_pid: int
    folder: Path

    @property
    def console(self) -> Path:
        """The log of the phone's serial console."""
        return self.folder / "console.log"

    def alive(self) -> bool:
        """Whether its QEMU still runs (it may be frozen, and adbd in it may not answer)."""
        return _locked(self.folder)

    def monitor(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        """Run a QMP command, such as ``stop``, ``cont``, ``system_reset``; return its answer."""
        return qmp.execute(self.folder / "qmp.sock", command, arguments)

    def stop(self) -> None:
        """End the phone and wait until it is gone; its disk goes with it. Twice is allowed.

        Raises:
            DeviceError: it is still there after 15 s.
        """
        deadline = time.monotonic() + _STOP_S
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.supervisor_pid, signal.SIGTERM)
        while self.alive():
            if time.monotonic() > deadline:
                raise DeviceError(
                    "the phone does not stop", where=self.serial, hint=f"See {self.folder}"
                )
            time.sleep(0.02)
        if process := _own.pop(self.folder, None):
            process.wait()
            if process.stdin:
                process.stdin.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def running() -> list[Phone]:
    """Phones that live now and have answered, oldest first; what dead ones left is removed."""
    root = _root()
    if not root.is_dir():
        return []
    with _exclusive(root):
        _sweep(root)
    phones = [_read(folder) for folder in root.iterdir() if (folder / "phone.json").is_file()]
    found = [phone for phone in phones if phone is not None and phone.alive()]
    return sorted(found, key=lambda phone: (phone.started_utc, phone.serial))


def start(
    profile: DeviceProfile,
    *,
    keys: Sequence[Path] = (),
    port: int | None = None,
    detached: bool = False,
    icount: bool = True,
    boot_timeout_s: float = 300.0,
    progress: Progress = silent,
) -> Phone:
    """Start a phone and wait until ADB answers on it.

    Args:
        profile: a profile with an ``emulator`` section.
        keys: public ADB keys (files) that it trusts besides the user's own.
        port: on 127.0.0.1; None: a free one, which the kernel chooses.
        detached: it lives on after this process; else it dies with it, also by SIGKILL.
        icount: its clock counts instructions (1 ns each), on one CPU.
        boot_timeout_s: wall seconds to wait for ADB.

    Raises:
        ConfigError: the profile cannot be emulated.
        DeviceError: a program is missing, the port is taken, or the phone did not come up.
    """
    spec = guest.emulator_of(profile)
    program = require_tool("qemu-system-aarch64", "qemu-system-arm")
    disk.require_maker()
    private_key = ensure_key()
    trusted = [read_public(path) for path in (public_path(private_key), *keys)]
    made = image.build(progress)
    serial_number = "POCKETSHIP" + secrets.token_hex(3).upper()
    handed_over = guest.archive(profile, serial=serial_number, keys=trusted, icount=icount)

    with _new_folder() as (folder, lock_fd):
        with (folder / "initrd").open("wb") as initrd:
            initrd.write(made.initrd.read_bytes() + handed_over)
        disk.make(folder / "disk.img", spec.disk_mib)
        progress(f"starting {profile.name}: {spec.memory_mib} MiB RAM, {spec.disk_mib} MiB disk")
        cores = sum(core.count for core in profile.cores) or 1
        clock = ["-smp", "1", "-icount", "shift=0,sleep=on"] if icount else ["-smp", str(cores)]
        arguments = [*_arguments(spec, made, port or 0), *clock]
        process = _supervise(folder, lock_fd, [program, *arguments])
        try:
            booting = boot.Booting(folder, process, time.monotonic() + boot_timeout_s)
            serial = f"127.0.0.1:{boot.wait_for_port(booting, port)}"
            boot.wait_for_adb(booting, serial, private_key, progress)
            supervisor_pid, qemu_pid = map(int, (folder / "pids").read_text().split())
            phone = Phone(
                serial=serial,
                profile=profile.name,
                icount=icount,
                detached=detached,
                image=made.digest,
                started_utc=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                supervisor_pid=supervisor_pid,
                qemu_pid=qemu_pid,
                folder=folder,
            )
            _record(phone)
            if detached:
                assert process.stdin is not None
                process.stdin.write(b"detach\n")
                process.stdin.flush()
        except BaseException:
            _abandon(folder, process)
            raise
    _own[folder] = process
    progress(f"{profile.name} answers at {phone.serial}")
    return phone


# Closing a supervisor's stdin ends its phone: nobody may collect the Popen as garbage.
_own: dict[Path, subprocess.Popen[bytes]] = {}


def _arguments(spec: EmulatorSpec, made: image.Image, port: int) -> list[str]:
    # QEMU runs in the phone's folder: relative names have no comma that it would split at.
    forward = f"hostfwd=tcp:127.0.0.1:{port}-:{_ADB_PORT}"
    return [
        *("-no-user-config", "-nodefaults", "-display", "none"),
        *("-M", "virt", "-accel", "tcg", "-cpu", spec.cpu, "-m", str(spec.memory_mib)),
        *("-kernel", str(made.kernel), "-initrd", "initrd", "-append", boot.COMMAND_LINE),
        *("-chardev", "file,id=console,path=console.log", "-serial", "chardev:console"),
        *("-chardev", "socket,id=qmp,path=qmp.sock,server=on,wait=off"),
        *("-mon", "chardev=qmp,mode=control"),
        # restrict: the phone reaches neither this machine nor the network, only ADB gets in.
        *("-netdev", f"user,id=n0,restrict=on,ipv6=off,{forward}"),
        *("-device", "virtio-net-pci,netdev=n0,romfile="),
        *("-drive", "if=none,id=d0,file=disk.img,format=raw,cache=unsafe,werror=report"),
        *("-device", "virtio-blk-pci,drive=d0"),
    ]


def _supervise(folder: Path, lock_fd: int, machine: list[str]) -> subprocess.Popen[bytes]:
    # Its own session: Ctrl-C in the terminal goes to pocketship, which then ends the phone.
    return subprocess.Popen(
        [
            *(sys.executable, "-I", "-S", str(_SUPERVISOR)),
            *(str(os.getpid()), str(folder), str(lock_fd), *machine),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(lock_fd,),
        start_new_session=True,
    )


_RECORDED = (
    *("serial", "profile", "icount", "detached", "image", "started_utc"),
    *("supervisor_pid", "qemu_pid"),
)


def _record(phone: Phone) -> None:
    known = {name: getattr(phone, name) for name in _RECORDED}
    write_text(phone.folder / "phone.json", json.dumps(known, indent=1) + "\n")


def _read(folder: Path) -> Phone | None:
    try:
        known = json.loads((folder / "phone.json").read_text(encoding="utf-8"))
        return Phone(**known, folder=folder)
    except (OSError, ValueError, TypeError):
        return None


def _abandon(folder: Path, process: subprocess.Popen[bytes]) -> None:
    """End a phone that did not come up; keep its logs for the user."""
    _keep_logs(folder)
    if process.stdin:
        process.stdin.close()
    process.wait()
    shutil.rmtree(folder, ignore_errors=True)


def _keep_logs(folder: Path) -> None:
    kept = folder.parent / "logs"
    with contextlib.suppress(OSError):
        kept.mkdir(exist_ok=True)
        for name in ("console", "qemu"):
            shutil.copyfile(folder / f"{name}.log", kept / f"{folder.name}.{name}.log")
        logs = sorted(kept.glob("*.log"), key=lambda path: path.stat().st_mtime)
        for old in logs[: -2 * _KEPT_LOGS]:
            old.unlink(missing_ok=True)


def _root() -> Path:
    return state_dir() / "phones"


@contextlib.contextmanager
def _exclusive(root: Path) -> Iterator[None]:
    """Nobody makes or sweeps folders meanwhile."""
    with (root / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _new_folder() -> Iterator[tuple[Path, int]]:
    """A phone's folder and the descriptor of its lock, held from the start."""
    root = _root()
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _exclusive(root):
            _sweep(root)
            folder = root / secrets.token_hex(4)
            folder.mkdir(mode=0o700)
            lock_fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock_fd, fcntl.LOCK_EX)
    except OSError as error:
        raise DeviceError(f"cannot make the phone's folder: {error}", where=str(root)) from None
    try:
        yield folder, lock_fd
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        os.close(lock_fd)


def _locked(folder: Path) -> bool:
    try:
        fd = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _sweep(root: Path) -> None:
    for folder in root.iterdir():
        if folder.is_dir() and folder.name != "logs" and not _locked(folder):
            _keep_logs(folder)
            shutil.rmtree(folder, ignore_errors=True)
