"""A device that writes down what it is asked and answers, so that a replay device can say it again.

What is left out or replaced is listed in :data:`REDACTED` and in the recording itself. Models and
inputs are not recorded (only their hashes are seen), outputs and the runner's results are.
"""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from deploy import __version__
from deploy.android_text import parse_getprop, printable, split_sections
from deploy.devices import transcript
from deploy.devices.adb_info import MATCHED_PROPERTIES
from deploy.devices.base import Device, ShellResult
from deploy.devices.questions import QUESTIONS, SUPPLIES, state_argv
from deploy.devices.transcript import Call, Manifest, Names
from deploy.errors import ConfigError, DeviceError, first_line
from deploy.files import write_bytes, write_text
from deploy.types import DeviceInfo, DeviceProfile

REDACTED = (
    "properties other than " + ", ".join(MATCHED_PROPERTIES),
    "the serial numbers that the device's properties and its address tell",
    "MAC addresses and e-mail addresses",
)
_SERIALS = ("ro.serialno", "ro.boot.serialno", "ril.serialnumber", "sys.serialno")
_PRIVATE = re.compile(
    r"\b(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}\b|[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,64}\.[A-Za-z.]+"
)
_REPLACED = "[redacted]"
_TOKEN = "0" * 16


class RecordingDevice:
    """Passes every call on to ``device`` and appends it to ``folder``/calls.jsonl."""

    def __init__(self, device: Device, folder: Path) -> None:
        self._device = device
        self._folder = folder
        self._names = Names()
        self._secrets: tuple[str, ...] = _address_parts(device.serial)
        self._calls = self._pulled_sum = self._calls_bytes = 0
        self._exit_codes: dict[str, int] = {}
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            raise ConfigError(
                "exists already", where=str(folder), hint="Name another folder."
            ) from None
        except OSError as error:
            raise ConfigError(f"cannot be made: {error.strerror}", where=str(folder)) from None
        self._write_profile()

    @property
    def redacted(self) -> tuple[str, ...]:
        """What is not in the recording."""
        return REDACTED

    @property
    def serial(self) -> str:
        """The device's own."""
        return self._device.serial

    @property
    def profile(self) -> DeviceProfile:
        """The device's own."""
        return self._device.profile

    def info(self) -> DeviceInfo:
        """The device's own; a replay answers it from the questions."""
        return self._device.info()

    def shell(
        self, argv: Sequence[str], *, timeout_s: float | None = None, cwd: str | None = None
    ) -> ShellResult:
        """Run a command and write down its answer, or the error."""
        hidden = self._names.hide([*argv, cwd or ""])
        words, folder = hidden[:-1], hidden[-1] or None
        try:
            result = self._device.shell(argv, timeout_s=timeout_s, cwd=cwd)
        except DeviceError as error:
            self._append(Call(kind="shell", argv=words, cwd=folder, error=self._told(error)))
            raise
        call = Call(
            kind="shell",
            argv=words,
            cwd=folder,
            exit_code=result.exit_code,
            stdout=self._text(result.stdout),
            stderr=self._text(result.stderr),
        )
        self._append(call)
        return result

    def push(self, local: Path, remote: str, *, mode: int = 0o644) -> None:
        """Copy a file to the device; only its name there is written down."""
        name = self._names.hide([remote])[0]
        try:
            self._device.push(local, remote, mode=mode)
        except DeviceError as error:
            self._append(Call(kind="push", remote=name, error=self._told(error)))
            raise
        self._append(Call(kind="push", remote=name))

    def pull(self, remote: str, local: Path, *, max_bytes: int) -> None:
        """Copy a file from the device, and into the recording."""
        name = self._names.hide([remote])[0]
        try:
            self._device.pull(remote, local, max_bytes=max_bytes)
        except DeviceError as error:
            self._append(Call(kind="pull", remote=name, error=self._told(error)))
            raise
        content = local.read_bytes()
        self._pulled_sum += len(content)
        if (
            len(content) > transcript.MAX_PULLED_BYTES
            or self._pulled_sum > transcript.MAX_PULLED_SUM
        ):
            raise self._full(f"{len(content)} bytes more from {printable(remote, 80)}")
        digest = hashlib.sha256(content).hexdigest()
        write_bytes(self._folder / transcript.PULLED / digest, content)
        self._append(Call(kind="pull", remote=name, pulled=digest))

    def close(self) -> None:
        """Let go of the device."""
        self._device.close()

    def ask_questions(self) -> None:
        """Ask everything that the agent asks about a device, one file an answer."""
        for name, argv in QUESTIONS.items():
            answer = self._device.shell(argv)
            text = answer.stdout
            if name == "getprop":
                properties = parse_getprop(text)
                told = {properties.get(key, "") for key in _SERIALS} - {"unknown"}
                self._secrets += tuple(value for value in told if len(value) >= 4)
                text = _kept(properties)
            self._write(name, text)
            if answer.exit_code:
                self._exit_codes[name] = answer.exit_code
        state = self._device.shell(state_argv(_TOKEN)).stdout
        for name, body in split_sections(state, _TOKEN).items():
            self._write(name, body)
        self._write("power_supply", self._device.shell(SUPPLIES).stdout)

    def finish(self) -> None:
        """Write the manifest, which makes the folder a recording."""
        manifest = Manifest(
            schema=1,
            pocketship=__version__,
            recorded_utc=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            profile=self.profile.name,
            exit_codes=self._exit_codes,
            redacted=REDACTED,
        )
        write_text(
            self._folder / transcript.MANIFEST, manifest.model_dump_json(by_alias=True, indent=2)
        )

    def _write_profile(self) -> None:
        declared = self.profile.model_dump(mode="json", exclude_defaults=True)
        declared |= {
            "transport": "replay",
            "tier": self.profile.tier.value,
            "description": f"Recording of: {self.profile.description}"[:500],
        }
        declared.pop("emulator", None)
        text = yaml.safe_dump(declared, sort_keys=False, allow_unicode=True)
        write_text(self._folder / transcript.PROFILE, text)

    def _write(self, name: str, text: str) -> None:
        write_text(self._folder / f"{name}.txt", self._text(text))

    def _append(self, call: Call) -> None:
        line = call.model_dump_json(exclude_defaults=True) + "\n"
        self._calls += 1
        self._calls_bytes += len(line)
        if self._calls > transcript.MAX_CALLS or self._calls_bytes > transcript.MAX_CALLS_BYTES:
            raise self._full(f"call {self._calls}")
        with (self._folder / transcript.CALLS).open("a", encoding="utf-8") as file:
            file.write(line)

    def _text(self, text: str) -> str:
        if len(text) > transcript.MAX_OUTPUT:
            raise self._full(f"an output of {len(text)} characters")
        for secret in self._secrets:
            text = text.replace(secret, _REPLACED)
        return self._names.hide_known(_PRIVATE.sub(_REPLACED, text))

    def _told(self, error: DeviceError) -> str:
        return self._text(first_line(error)[:2000])

    def _full(self, what: str) -> DeviceError:
        return DeviceError(
            f"the recording has no room for {what}",
            where=str(self._folder),
            hint="Record fewer cases or smaller models.",
        )


def _address_parts(serial: str) -> tuple[str, ...]:
    host = serial.rpartition(":")[0].strip("[]") or serial
    private = serial not in {"host"} and host not in {"127.0.0.1", "localhost"}
    return (serial, host) if private and len(host) >= 4 else ()


def _kept(properties: Mapping[str, str]) -> str:
    return "".join(
        f"[{name}]: [{properties[name]}]\n" for name in MATCHED_PROPERTIES if name in properties
    )
