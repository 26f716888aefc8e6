"""`pocketship doctor`: what it finds, what it says of what it does not find, its exit code."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy import doctor
from deploy.doctor import Check, Machine
from tests.deploy.fake_mac import usual

ROOT = Path(__file__).resolve().parents[2]
HOST_TOOLS = ("g++", "cmake", "ninja")
PHONE_TOOLS = ("aarch64-linux-gnu-g++", "qemu-system-aarch64", "mke2fs", "dpkg-deb", "apt-get")

MakeMachine = Callable[..., Machine]


@pytest.fixture
def machine(tmp_path: Path) -> MakeMachine:
    """A machine that has only the named tools (real, tiny programs) and an empty home."""

    def make(*tools: str, **replaced: object) -> Machine:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        for tool in tools:
            program(folder / tool, f"echo '{tool} (Debian 1) 12.34.5'")
        surroundings: dict[str, object] = {
            "path": str(folder),
            "further": (),
            "scripts": tmp_path / "no-scripts",
            "home": tmp_path / "home",
            "cache": tmp_path / "cache",
            "system": "Linux",
            "python": (3, 11, 7),
            "distribution_version": lambda name: "1.2.3",
        }
        return Machine(**(surroundings | replaced))  # type: ignore[arg-type]

    return make


def program(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_complete_machine_works(machine: MakeMachine) -> None:
    checks = doctor.check(machine(*HOST_TOOLS, *PHONE_TOOLS, "adb"))
    assert doctor.exit_code(checks) == 0
    assert doctor.summary(checks) == "Works on host and on the emulated phone."
    assert by_name(checks)["QEMU"].found.startswith("12.34.5 /")


def test_bare_machine_says_what_to_do_about_each_thing(machine: MakeMachine) -> None:
    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    checks = doctor.check(machine(distribution_version=absent, python=(3, 12, 1)))
    missing = [check for check in checks if not check.ok]
    assert {"Python", "torch", "C++ compiler", "QEMU", "adb", "adb key"} <= set(by_name(missing))
    assert all(check.how and check.needed_for for check in missing)
    assert doctor.exit_code(checks) == 6
    assert "C++ compiler" in doctor.summary(checks)


@pytest.mark.parametrize("tool", HOST_TOOLS)
def test_without_a_host_tool_nothing_runs(machine: MakeMachine, tool: str) -> None:
    tools = [name for name in HOST_TOOLS if name != tool]
    checks = doctor.check(machine(*tools, *PHONE_TOOLS))
    assert doctor.exit_code(checks) == 6


@pytest.mark.parametrize("tool", PHONE_TOOLS)
def test_without_a_phone_tool_host_still_works(machine: MakeMachine, tool: str) -> None:
    tools = [name for name in PHONE_TOOLS if name != tool]
    checks = doctor.check(machine(*HOST_TOOLS, *tools))
    assert doctor.exit_code(checks) == 0
    assert doctor.summary(checks).startswith("Works on host only")


def test_cached_image_needs_no_debian_tools(machine: MakeMachine, tmp_path: Path) -> None:
    (tmp_path / "cache/phone/0123456789abcdef").mkdir(parents=True)
    (tmp_path / "cache/phone/0123456789abcdef/initrd").write_bytes(b"x")
    tools = ("aarch64-linux-gnu-g++", "qemu-system-aarch64", "mke2fs")
    checks = doctor.check(machine(*HOST_TOOLS, *tools))
    assert by_name(checks)["phone image"].ok
    assert doctor.summary(checks) == "Works on host and on the emulated phone."


def test_half_built_cache_entry_does_not_count(machine: MakeMachine, tmp_path: Path) -> None:
    (tmp_path / "cache/harness/bundle-x86_64-0123.tmp").mkdir(parents=True)
    (tmp_path / "cache/harness/wheels").mkdir()
    (tmp_path / "cache/phone/.0123.tmp").mkdir(parents=True)
    (tmp_path / "cache/phone/.0123.tmp/initrd").touch()
    checks = by_name(doctor.check(machine()))
    assert not checks["native parts built"].ok
    assert not checks["phone image"].ok
    (tmp_path / "cache/harness/bundle-x86_64-0123").mkdir()
    assert by_name(doctor.check(machine()))["native parts built"].ok


def test_tool_that_does_not_run_is_not_there(machine: MakeMachine, tmp_path: Path) -> None:
    here = machine(*HOST_TOOLS)
    program(tmp_path / "bin/qemu-system-aarch64", "exit 127")
    (tmp_path / "bin/adb").write_bytes(b"\x7fELF of another machine")
    (tmp_path / "bin/adb").chmod(0o755)
    checks = by_name(doctor.check(here))
    assert not checks["QEMU"].ok
    assert checks["QEMU"].found.endswith("does not run: exit code 127")
    assert not checks["adb"].ok
    assert "does not run" in checks["adb"].found


def test_tool_that_prints_garbage_has_no_version(machine: MakeMachine, tmp_path: Path) -> None:
    here = machine()
    program(tmp_path / "bin/g++", r"printf '\377\033[31m no number'")
    check = by_name(doctor.check(here))["C++ compiler"]
    assert check.ok
    assert check.found == str(tmp_path / "bin/g++")


def test_own_scripts_come_before_path(machine: MakeMachine, tmp_path: Path) -> None:
    scripts = tmp_path / "venv"
    scripts.mkdir()
    program(scripts / "cmake", "echo cmake version 4.0.1")
    check = by_name(doctor.check(machine("cmake", scripts=scripts)))["cmake"]
    assert check.found == f"4.0.1 {scripts / 'cmake'}"


def test_xcrun_is_looked_for_on_a_mac_only(machine: MakeMachine) -> None:
    assert by_name(doctor.check(machine("xcrun")))["xcrun"].how == "needs a Mac"
    assert by_name(doctor.check(machine("xcrun", system="Darwin")))["xcrun"].ok


def test_the_newest_ios_runtime_is_shown(machine: MakeMachine, tmp_path: Path) -> None:
    mac = machine("xcrun", system="Darwin")
    for answer, ok, words in (
        (json.dumps(usual()), True, "iOS 18.0 (22A3351)"),
        (json.dumps({"devices": {}}), False, "-downloadPlatform iOS"),
        ("garbage", False, "is not JSON"),
    ):
        (tmp_path / "answer").write_text(answer)
        program(tmp_path / "bin/xcrun", f"/bin/cat {tmp_path / 'answer'}")
        check = by_name(doctor.check(mac))["iOS runtime"]
        assert check.ok == ok
        assert words in check.found + check.how
    assert by_name(doctor.check(machine()))["iOS runtime"].how == "needs a Mac"


def test_cache_that_cannot_be_written_is_named(machine: MakeMachine, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    checks = doctor.check(machine(*HOST_TOOLS, cache=tmp_path / "file/cache"))
    assert "POCKETSHIP_CACHE" in by_name(checks)["cache"].how
    assert doctor.exit_code(checks) == 6


def test_half_an_adb_key_is_none(machine: MakeMachine, tmp_path: Path) -> None:
    folder = tmp_path / "home/.android"
    folder.mkdir(parents=True)
    (folder / "adbkey").touch()
    assert not by_name(doctor.check(machine()))["adb key"].ok
    (folder / "adbkey.pub").touch()
    assert by_name(doctor.check(machine()))["adb key"].ok


def test_checks_survive_json(machine: MakeMachine) -> None:
    checks = doctor.check(machine("g++"))
    text = json.dumps([check.model_dump(mode="json") for check in checks])
    assert [Check.model_validate(row) for row in json.loads(text)] == checks


def test_nothing_heavy_is_imported() -> None:
    """A broken torch must not break the command that says so."""
    code = (
        "import sys; from deploy import doctor; doctor.check(); "
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'coremltools', 'executorch', 'numpy'} "
        "& sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
