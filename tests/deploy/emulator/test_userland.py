"""What an agent finds on the phone: the answers have Android's formats."""

from __future__ import annotations

import re
import socket

import pytest

from .conftest import Adb, Phone, Shell, load_profile

pytestmark = pytest.mark.phone


def test_getprop_lists_in_androids_format(shell: Shell) -> None:
    lines = shell("getprop").splitlines()
    assert all(re.fullmatch(r"\[[^]]+\]: \[.*\]", line) for line in lines)
    assert lines == sorted(lines)
    told = dict(re.findall(r"^\[(.+?)\]: \[(.*)\]$", "\n".join(lines), flags=re.MULTILINE))
    profile = load_profile("emulated-arm64")
    assert profile.emulator is not None
    assert profile.emulator.properties.items() <= told.items()
    assert told["ro.boot.pocketship.icount"] == "1"
    assert told["ro.product.cpu.abi"] == "arm64-v8a"
    assert "emulated" in told["ro.build.fingerprint"]


def test_the_profile_recognises_its_phone(shell: Shell) -> None:
    for name, pattern in load_profile("emulated-arm64").match.items():
        assert re.fullmatch(pattern, shell(f"getprop {name}").rstrip("\n"))


def test_getprop_of_one_property(shell: Shell) -> None:
    assert shell("getprop ro.soc.manufacturer") == "QEMU\n"
    assert shell("getprop no.such.property") == "\n"
    assert shell("getprop no.such.property fallback") == "fallback\n"


def test_setprop_allows_what_a_phones_shell_may(shell: Shell) -> None:
    assert shell("setprop debug.x 'a=b; $(id)'; getprop debug.x") == "a=b; $(id)\n"
    assert "Failed to set property 'ro.x'" in shell("setprop ro.x 1")
    assert shell("setprop debug/../../x 1; echo $?").endswith("\n1\n")
    assert shell(f"setprop debug.y {'v' * 92} 2>/dev/null; echo $?") == "1\n"


def test_dumpsys_battery_can_be_overridden_and_reset(shell: Shell) -> None:
    before = shell("dumpsys battery")
    assert before.startswith("Current Battery Service state:\n  AC powered: true\n")
    assert "  temperature: 250\n" in before and "  voltage: 5000\n" in before
    changed = shell("dumpsys battery unplug; dumpsys battery set temp 411; dumpsys battery")
    assert "  AC powered: false\n" in changed and "  temperature: 411\n" in changed
    assert "UPDATES STOPPED" in changed
    assert shell("dumpsys battery reset; dumpsys battery") == before
    assert "Bad value" in shell("dumpsys battery set temp hot")


def test_thermal_status_can_be_overridden_and_no_temperature_is_invented(shell: Shell) -> None:
    calm = shell("dumpsys thermalservice")
    assert "Thermal Status: 0\n" in calm and "Temperature{" not in calm
    hot = shell("cmd thermalservice override-status 3; dumpsys thermalservice")
    assert "IsStatusOverride: true\n" in hot and "Thermal Status: 3\n" in hot
    assert shell("cmd thermalservice reset; dumpsys thermalservice") == calm


def test_meminfo_of_a_process_is_the_kernels(shell: Shell) -> None:
    text = shell("sleep 100 & dumpsys meminfo $!; grep ^Rss: /proc/$!/smaps_rollup; kill $!")
    total = re.search(r"^ +TOTAL +\d+ +\d+ +\d+ +\d+ +(\d+)$", text, flags=re.MULTILINE)
    rss = re.search(r"^Rss: +(\d+) kB", text, flags=re.MULTILINE)
    assert total and rss and total[1] == rss[1] != "0"
    assert "Total RAM: 1,0" in shell("dumpsys meminfo")
    assert "No process found for: 99999" in shell("dumpsys meminfo 99999")


def test_settings_are_kept(shell: Shell) -> None:
    assert shell("settings get global nothing") == "null\n"
    assert shell("settings put global my_key 'two words'; settings get global my_key") == (
        "two words\n"
    )
    assert "my_key=two words\n" in shell("settings list global")
    assert shell("settings delete global my_key; settings get global my_key") == (
        "Deleted 1 rows\nnull\n"
    )
    assert "usage" in shell("settings put global ../x 1")


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("cmd power set-fixed-performance-mode-enabled true; echo $?", "0\n"),
        ("cmd power set-fixed-performance-mode-enabled 2>/dev/null; echo $?", "255\n"),
        ("pm list packages; echo $?", "cmd: Can't find service: package\n20\n"),
        ("am start x; echo $?", "cmd: Can't find service: activity\n20\n"),
        ("dumpsys batterystats; echo $?", "Can't find service: batterystats\n0\n"),
        ("logcat -d; echo $?", "0\n"),
        ("perfetto --version >/dev/null 2>&1; echo $?", "127\n"),
        ("nproc", "1\n"),
        ("taskset 1 nproc", "1\n"),
        ("id -u", "2000\n"),
        ("touch /x 2>/dev/null; echo $?", "1\n"),
    ],
)
def test_commands_of_an_agent(shell: Shell, command: str, answer: str) -> None:
    assert shell(command) == answer


def test_every_promised_tool_is_in_busybox(shell: Shell) -> None:
    missing = shell(
        "busybox --list >/data/local/tmp/have; "
        "for a in $(cat /etc/applets); do grep -qxF -- $a /data/local/tmp/have || echo $a; done; "
        "rm /data/local/tmp/have"
    )
    assert missing == ""


def test_the_processor_is_a_real_model(shell: Shell) -> None:
    text = shell("cat /proc/cpuinfo")
    assert "CPU implementer\t: 0x41\n" in text and "CPU part\t: 0xd0b\n" in text


def test_there_is_no_way_out_of_the_phone(shell: Shell) -> None:
    # 10.0.2.2 is this machine's loopback, seen from a guest of QEMU that is not restricted.
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        answer = shell(f"nc -w 3 10.0.2.2 {port} </dev/null 2>&1; echo code $?")
        assert "code 1" in answer, answer
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):
            listening.accept()


@pytest.mark.adb
def test_google_adb_sees_a_phone(adb: Adb, phone: Phone) -> None:
    assert "connected to" in adb("connect", phone.serial).stdout
    listed = adb("devices", "-l").stdout
    assert f"{phone.serial} " in listed and "product:emulated_arm64" in listed
    done = adb("-s", phone.serial, "shell", "uname -a; echo oops >&2; exit 7")
    assert done.returncode == 7 and done.stderr == "oops\n"
    assert re.match(r"Linux localhost \S+ .*aarch64", done.stdout)
    assert adb("-s", phone.serial, "shell", "-t", "-t", "tty").stdout.startswith("/dev/pts/")
