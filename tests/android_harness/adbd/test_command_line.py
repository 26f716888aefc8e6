"""What the daemon is started with."""

import socket
import subprocess

import pytest

from tests.android_harness.adbd.daemon import Daemon


def run(program, *words):
    return subprocess.run([program, *words], capture_output=True, text=True, timeout=60)


HERE = ("--listen", "127.0.0.1:0")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "--listen is needed"),
        (HERE, "exactly one of --authorized-keys FILE and --no-auth"),
        ([*HERE, "--no-auth", "--authorized-keys", "/dev/null"], "exactly one of"),
        (["--listen", "0.0.0.0:0", "--no-auth"], "others can reach"),
        (["--listen", "[::]:0", "--no-auth"], "others can reach"),
        (["--listen", "localhost:5555", "--no-auth"], "--listen 'localhost:5555'"),
        (["--listen", "127.0.0.1", "--no-auth"], "--listen '127.0.0.1'"),
        (["--listen", "127.0.0.1:70000", "--no-auth"], "expected an address and a port"),
        (["--listen", "127.0.0.1:55x", "--no-auth"], "expected an address and a port"),
        (["--listen"], "--listen: needs a value"),
        ([*HERE, "--no-auth", "--fast"], "--fast: unknown option"),
        ([*HERE, "--no-auth", "now"], "now: unexpected"),
        ([*HERE, "--authorized-keys", "/nowhere"], "/nowhere: cannot read"),
        ([*HERE, "--authorized-keys", "/proc"], "/proc: cannot read"),
        ([*HERE, "--authorized-keys", "/dev/null"], "/dev/null: holds no key"),
        ([*HERE, "--no-auth", "--shell", "sh"], "--shell 'sh'"),
        ([*HERE, "--no-auth", "--reboot", "/nowhere"], "--reboot '/nowhere'"),
        ([*HERE, "--no-auth", "--banner", "phone"], "must begin with device::"),
        ([*HERE, "--no-auth", "--banner", "device::x"], "'x' is not name=value"),
        (
            [*HERE, "--no-auth", "--banner", "device::features=shell_v2,abb"],
            "feature 'abb' is not implemented",
        ),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(adbd_program, words, says):
    done = run(adbd_program, *words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("adbd: ")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("line", ["nonsense", "QUJD", "=", "A" * 700])
def test_a_line_that_is_no_key_is_named(adbd_program, key_file, tmp_path, line):
    keys = tmp_path / "keys"
    keys.write_text(key_file.with_suffix(".pub").read_text() + "\n" + line + "\n")
    done = run(adbd_program, *HERE, "--authorized-keys", keys)
    assert done.returncode == 2
    assert f"{keys}:2: not an adb public key" in done.stderr


def test_a_port_that_is_taken_and_a_port_file_that_cannot_be_written_end_it(adbd_program):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run(adbd_program, "--listen", f"127.0.0.1:{port}", "--no-auth")
    assert done.returncode == 1
    assert done.stderr == f"adbd: cannot listen on 127.0.0.1:{port}: Address already in use\n"
    done = run(adbd_program, *HERE, "--no-auth", "--port-file", "/nowhere/port")
    assert done.returncode == 1
    assert "cannot write /nowhere/port: No such file or directory" in done.stderr


def test_help_names_every_option(adbd_program):
    done = run(adbd_program, "--help")
    assert done.returncode == 0
    for option in ("listen", "authorized-keys", "port-file", "no-auth", "shell", "path-prefix"):
        assert f"--{option}" in done.stdout


def test_ipv6_loopback(adbd_program, tmp_path):
    daemon = Daemon(adbd_program, tmp_path, ["--no-auth", "--listen", "[::1]:0"])
    with socket.create_connection(("::1", daemon.port)):
        pass
    assert "listening on [::1]:" in daemon.log()
    assert daemon.stop() == 0
