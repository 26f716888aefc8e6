"""A device that answers from a recording, so that a bug report can be run without the phone.

Its figures are the recorded ones and its tier is the recorded device's; every case says that it was
replayed. The same questions get the same answers; a call that was never recorded is a
``DeviceError``, never a made-up answer.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from deploy.android_text import join_sections, printable
from deploy.devices import transcript
from deploy.devices.adb_info import read_info
from deploy.devices.base import ShellResult
from deploy.devices.questions import QUESTIONS, STATE_SECTIONS, SUPPLIES, state_argv
from deploy.devices.transcript import Call, Manifest, Names, key
from deploy.errors import DeviceError
from deploy.files import sha256, write_bytes
from deploy.types import DeviceInfo, DeviceProfile

_HINT = "docs/replay.md says what a recording holds."
# Commands that prepare the device and whose answer decides nothing.
_HARMLESS = frozenset({"mkdir", "ls", "df", "sync", "find", "rm", "touch", "true"})


def check(folder: Path) -> None:
    """Raise ``DeviceError`` where ``folder`` holds neither answers nor a recorded case."""
    if not any((folder / name).is_file() for name in (transcript.MANIFEST, "getprop.txt")):
        raise DeviceError(
            "is no recording of a device", where=printable(str(folder), 200), hint=_HINT
        )


class ReplayDevice:
    """The device that was recorded in ``folder``."""

    def __init__(self, folder: Path, profile: DeviceProfile) -> None:
        check(folder)
        self.profile = profile
        self._folder = folder
        self._names = Names()
        self._manifest = self._read_manifest()
        self._answers = self._read_calls()
        self._given: dict[tuple[str, ...], int] = defaultdict(int)
        self._pushed: dict[str, str] = {}

    @property
    def serial(self) -> str:
        """``replay:`` and the folder's name: no report takes it for a phone's."""
        return f"replay:{printable(self._folder.name, 80)}"

    def info(self) -> DeviceInfo:
        """What the recorded device answered."""
        return read_info(self)

    def ask(self, argv: Sequence[str]) -> ShellResult:
        """:meth:`shell` for a command that only reads."""
        return self.shell(argv)

    def shell(
        self, argv: Sequence[str], *, timeout_s: float | None = None, cwd: str | None = None
    ) -> ShellResult:
        """The recorded answer; the next one each time, the last one from then on."""
        hidden = self._names.hide([*argv, cwd or ""])
        call = self._next(key("shell", hidden[:-1], hidden[-1] or None))
        if list(argv[:2]) == ["sha256sum", "--"]:
            return self._hashes(argv[2:], cwd, call)
        if call is not None:
            show = self._names.show
            return ShellResult(call.exit_code, show(call.stdout), show(call.stderr))
        return self._without_call(list(argv))

    def push(self, local: Path, remote: str, *, mode: int = 0o644) -> None:
        """Take the file's hash, which ``sha256sum`` tells from now on."""
        self._next(key("push", remote=self._names.hide([remote])[0]))
        self._pushed[remote] = sha256(local)

    def pull(self, remote: str, local: Path, *, max_bytes: int) -> None:
        """Copy a recorded file, after checking that its content is what its name says."""
        call = self._next(key("pull", remote=self._names.hide([remote])[0]))
        if call is None or not call.pulled:
            raise self._unknown(f"the file {printable(remote, 120)}")
        path = self._folder / transcript.PULLED / call.pulled
        content = self._read(path, min(max_bytes, transcript.MAX_PULLED_BYTES))
        if hashlib.sha256(content).hexdigest() != call.pulled:
            raise DeviceError("the recorded content is damaged", where=str(path), hint=_HINT)
        write_bytes(local, content)

    def close(self) -> None:
        """Nothing is held open."""

    def _next(self, wanted: tuple[str, ...]) -> Call | None:
        calls = self._answers.get(wanted)
        if not calls:
            return None
        call = calls[min(self._given[wanted], len(calls) - 1)]
        self._given[wanted] += 1
        if call.error:
            raise DeviceError(
                f"recorded: {printable(self._names.show(call.error), 300)}", where=self.serial
            )
        return call

    def _hashes(self, names: Sequence[str], cwd: str | None, call: Call | None) -> ShellResult:
        """Of files pushed in this session their own hashes, of others the recorded ones."""
        recorded = self._names.show(call.stdout) if call else ""
        own = {
            name: digest
            for name in names
            if (digest := self._pushed.get(posixpath.join(cwd or "", name)))
        }
        lines = [line for line in recorded.splitlines() if line[66:] not in own]
        lines += [f"{digest}  {name}" for name, digest in own.items()]
        exit_code = call.exit_code if call and not own else 0
        return ShellResult(exit_code, "".join(f"{line}\n" for line in lines))

    def _without_call(self, argv: list[str]) -> ShellResult:
        for name, question in QUESTIONS.items():
            if argv == list(question):
                return self._file(name)
        if argv == list(SUPPLIES):
            return self._file("power_supply")
        if argv[:-1] == state_argv("")[:-1]:
            sections = {name: self._file(name).stdout for name in STATE_SECTIONS}
            return ShellResult(0, join_sections(sections, argv[-1]))
        # The renaming of pushed files, and the list of stored ones.
        moving = argv[:2] == ["sh", "-c"] and any(w in argv[2] for w in ("mv -f", "stat -c"))
        if argv[0] in _HARMLESS or (moving and "changed" not in " ".join(argv[3:])):
            return ShellResult(0, "")
        raise self._unknown(f"the command {printable(' '.join(argv), 120)!r}")

    def _file(self, name: str) -> ShellResult:
        path = self._folder / f"{name}.txt"
        if not path.is_file():
            return ShellResult(127, f"{name} was not recorded\n")
        text = self._read(path, transcript.MAX_OUTPUT).decode("utf-8", errors="replace")
        return ShellResult(self._manifest.exit_codes.get(name, 0), text)

    def _read_manifest(self) -> Manifest:
        path = self._folder / transcript.MANIFEST
        if not path.is_file():
            return Manifest(schema=1, pocketship="", recorded_utc="", profile=self.profile.name)
        try:
            return Manifest.model_validate_json(self._read(path, transcript.MAX_OUTPUT))
        except ValidationError as error:
            raise self._broken(path, error) from None

    def _read_calls(self) -> dict[tuple[str, ...], list[Call]]:
        path = self._folder / transcript.CALLS
        answers: dict[tuple[str, ...], list[Call]] = defaultdict(list)
        if not path.is_file():
            return answers
        lines = self._read(path, transcript.MAX_CALLS_BYTES).splitlines()
        for line in lines[: transcript.MAX_CALLS]:
            try:
                call = Call.model_validate_json(line)
            except ValidationError as error:
                raise self._broken(path, error) from None
            answers[call.key].append(call)
        return answers

    def _read(self, path: Path, limit: int) -> bytes:
        if path.is_symlink() or not path.is_file():
            raise DeviceError("is no plain file", where=printable(str(path), 200), hint=_HINT)
        try:
            with path.open("rb") as file:
                content = file.read(limit + 1)
        except OSError as error:
            raise DeviceError(f"cannot be read: {error.strerror}", where=str(path)) from None
        if len(content) > limit:
            raise DeviceError(f"has more than {limit} bytes", where=str(path), hint=_HINT)
        return content

    def _broken(self, path: Path, error: ValidationError) -> DeviceError:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:80]
        return DeviceError(
            f"is no part of a recording: {where}: {first['msg']}"[:300], where=str(path), hint=_HINT
        )

    def _unknown(self, what: str) -> DeviceError:
        made = f"pocketship {v}" if (v := printable(self._manifest.pocketship, 40)) else "hand"
        error = DeviceError(
            f"the recording (made by {made}) has no answer to {what}",
            where=self.serial,
            hint="A case can be replayed where it was recorded, with the same pocketship.",
        )
        # Not a link that broke: waiting for a recording does not help.
        error.__cause__ = FileNotFoundError()
        return error
