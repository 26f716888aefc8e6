"""Google's adb client is the judge: what a user does with it works as on a phone."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from pathlib import Path

import pytest

from tests.android_harness.adbd.daemon import Daemon, eventually

pytestmark = pytest.mark.adb


def failing(done, *words):
    said = (done.stdout + done.stderr).decode()
    assert done.returncode != 0, said
    for word in words:
        assert word in said
    return said


def snapshot(folder):
    """Path -> (kind, mode, mtime, content) of everything in a folder that adb copies."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        if path.is_symlink():
            found[str(path.relative_to(folder))] = ("link", str(path.readlink()))
        elif path.is_file():
            found[str(path.relative_to(folder))] = (
                oct(status.st_mode),
                int(status.st_mtime),
                path.read_bytes(),
            )
    return found


@pytest.fixture
def tree(tmp_path):
    """A folder with what tends to go wrong in copying."""
    root = tmp_path / "tree"
    (root / "deep" / "er").mkdir(parents=True)
    for name, mode, content in [
        ("plain", 0o644, b"plain\n"),
        ("empty", 0o600, b""),
        ("deep/program", 0o755, b"#!/bin/sh\n"),
        ("deep/er/read only", 0o444, os.urandom(200_000)),
        ("name with 'quotes' and ünïcödé", 0o640, bytes(range(256))),
        ("comma,0", 0o644, b"the path of a push ends at the last comma"),
    ]:
        path = root / name
        path.write_bytes(content)
        path.chmod(mode)
        os.utime(path, (981_000_000, 981_000_000 + len(content)))
    (root / "deep" / "link").symlink_to("er/read only")
    return root


# ---- Connecting


def test_the_device_is_listed_with_what_its_banner_says(start_daemon, google_adb):
    banner = "device::ro.product.name=oriole;ro.product.model=Pixel 6;ro.product.device=or"
    daemon = start_daemon("--banner", banner + ";features=shell_v2,cmd")
    device = google_adb.connect(daemon)
    listed = google_adb("devices", "-l").stdout.decode()
    assert re.search(rf"{daemon.serial} +device product:oriole model:Pixel_6 device:or", listed)
    assert device("features").stdout.split() == [b"shell_v2", b"cmd"]
    assert device("get-state").stdout == b"device\n"


def test_an_unauthorised_key_is_reported_as_such(make_adb, write_key, daemon):
    from cryptography.hazmat.primitives.asymmetric import rsa

    stranger = make_adb(write_key(rsa.generate_private_key(65537, 2048)))
    assert "failed to authenticate" in stranger("connect", daemon.serial).stdout.decode()
    assert f"{daemon.serial}\tunauthorized" in stranger("devices").stdout.decode()
    failing(stranger("-s", daemon.serial, "shell", "echo in"), "unauthorized")
    eventually(lambda: "not authorised: SHA256:" in daemon.log(), "the daemon says who it was")


def test_it_can_be_reached_again_after_a_kill(
    start_daemon, adbd_program, google_adb, tmp_path, key_file
):
    keys = ["--authorized-keys", key_file.with_suffix(".pub")]
    first = Daemon(adbd_program, tmp_path, keys)
    device = google_adb.connect(first)
    assert device("shell", "echo 1").stdout == b"1\n"
    first.process.kill()
    first.process.wait()
    eventually(
        lambda: f"{first.serial}\tdevice" not in google_adb("devices").stdout.decode(),
        "the loss is noticed",
    )
    second = start_daemon(port=first.port)
    eventually(lambda: b"connected" in google_adb("connect", second.serial).stdout, "back again")
    eventually(lambda: device("shell", "echo 2").stdout == b"2\n", "it answers")


# ---- Commands


def test_shell_has_exit_code_and_separate_streams(device):
    done = device("shell", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")


@pytest.mark.parametrize("signal", [9, 15])
def test_a_killed_command_has_the_shells_exit_code(device, signal):
    assert device("shell", f"kill -{signal} $$").returncode == 128 + signal


def test_shell_feeds_stdin_and_its_end(device):
    content = os.urandom(3_000_000)
    assert device("shell", "cat", input=content).stdout == content
    assert device("shell", "wc -c", input=b"").stdout.strip() == b"0"


def test_a_command_that_ignores_its_input_ends(device):
    assert device("shell", "exit 4", input=b"x" * 5_000_000).returncode == 4


def test_exec_out_is_exact(device, tmp_path):
    content = bytes(range(256)) * 8192 + b"\r\n\n\r"
    (tmp_path / "file").write_bytes(content)
    assert device("exec-out", f"cat {tmp_path}/file").stdout == content


def test_exec_in_is_exact(device, tmp_path):
    content = os.urandom(1_000_001)
    # exec-in leaves as soon as it has sent everything: without exit code, without waiting.
    device("exec-in", f"cat > {tmp_path}/part; mv {tmp_path}/part {tmp_path}/in", input=content)
    eventually((tmp_path / "in").exists, "the command has ended")
    assert (tmp_path / "in").read_bytes() == content


def test_a_long_command_line(device):
    word = "x" * 60_000
    assert device("shell", f"echo {word}").stdout.decode() == word + "\n"


def test_commands_start_at_the_root_with_the_path_prefix(start_daemon, google_adb, tmp_path):
    program = tmp_path / "getprop"
    program.write_text("#!/bin/sh\necho prop of $1\n")
    program.chmod(0o755)
    device = google_adb.connect(start_daemon("--path-prefix", tmp_path))
    assert device("shell", "pwd; getprop ro.x; ls / >/dev/null && echo rest").stdout == (
        b"/\nprop of ro.x\nrest\n"
    )


def test_twenty_shells_at_once_beside_a_push(device, tmp_path):
    """Each waits until all have started, so they can only end if they run at the same time."""
    big = tmp_path / "big"
    big.write_bytes(os.urandom(20_000_000))
    script = (
        f"touch {tmp_path}/started-$0; "
        f"until [ $(ls {tmp_path} | grep -c started-) = 20 ]; do sleep 0.05; done; echo $0; exit $0"
    )
    shells = [
        device.popen("shell", f"sh -c '{script}' {n}", stdin=subprocess.DEVNULL, stdout=-1)
        for n in range(1, 21)
    ]
    assert device("push", big, f"{tmp_path}/pushed").returncode == 0
    for number, shell in enumerate(shells, 1):
        assert shell.communicate(timeout=60)[0] == b"%d\n" % number
        assert shell.returncode == number
    assert (tmp_path / "pushed").read_bytes() == big.read_bytes()


def test_without_shell_v2_the_client_falls_back(start_daemon, google_adb):
    device = google_adb.connect(
        start_daemon("--banner", "device::ro.product.name=old;features=cmd")
    )
    done = device("shell", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"out\nerr\n", b"")


def test_an_interactive_shell_has_a_terminal_of_the_right_size(device):
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("4H", 43, 121, 0, 0))
    environment = device.adb.environment() | {"TERM": "xterm-256color"}
    shell = subprocess.Popen(
        ["adb", "-s", device.daemon.serial, "shell"],
        env=environment,
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
    )
    os.close(its)
    said = os.read(ours, 4096)  # the prompt; what comes earlier is thrown away by the client
    os.write(ours, b"stty size; tty; echo $TERM; echo sum $((40 + 2)); exit 5\n")
    try:
        while part := os.read(ours, 4096):
            said += part
    except OSError:  # the terminal's other end is closed
        pass
    os.close(ours)
    assert shell.wait(60) == 5
    assert b"43 121\r\n" in said
    assert b"/dev/pts/" in said
    assert b"xterm-256color\r\n" in said
    assert b"sum 42\r\n" in said


def test_a_forced_terminal_gets_control_c(device, tmp_path):
    shell = device.popen(
        "shell", "-tt", f"echo $$ > {tmp_path}/pid; exec sleep 1000", stdin=-1, stdout=-1
    )
    eventually((tmp_path / "pid").exists, "it runs")
    shell.stdin.write(b"\x03")
    shell.stdin.flush()
    assert shell.wait(60) == 128 + 2


# ---- Files


def test_a_folder_goes_there_and_back_the_same(device, tree, tmp_path):
    assert device("push", tree, tmp_path / "there").returncode == 0
    there = tmp_path / "there"
    assert snapshot(there) == snapshot(tree)
    assert device("pull", "-a", there, tmp_path / "back").returncode == 0
    back, expected = snapshot(tmp_path / "back"), snapshot(tree)
    # adb pull follows links, and applies the umask of this machine to modes.
    for name, entry in expected.items():
        content = (tree / name).read_bytes()
        assert back[name][2] == content
        if entry[0] != "link":
            assert back[name][1] == entry[1]


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 1 << 20, 30_000_001])
def test_files_of_every_size(device, tmp_path, size):
    (tmp_path / "file").write_bytes(os.urandom(size))
    assert device("push", tmp_path / "file", f"{tmp_path}/new/folders/file").returncode == 0
    assert device("pull", f"{tmp_path}/new/folders/file", tmp_path / "back").returncode == 0
    assert (tmp_path / "back").read_bytes() == (tmp_path / "file").read_bytes()


def test_a_push_replaces_a_file_and_a_link_but_not_what_the_link_means(device, tmp_path):
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "old").write_bytes(b"something longer")
    (tmp_path / "aim").write_bytes(b"aim")
    (tmp_path / "link").symlink_to("aim")
    for name in ("old", "link"):
        assert device("push", tmp_path / "new", tmp_path / name).returncode == 0
        assert (tmp_path / name).read_bytes() == b"new"
    assert (tmp_path / "aim").read_bytes() == b"aim"


def test_a_push_into_a_folder_and_to_the_null_device(device, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"content")
    assert device("push", tmp_path / "file", tmp_path / "folder").returncode == 0
    assert (tmp_path / "folder" / "file").read_bytes() == b"content"
    assert device("push", tmp_path / "file", "/dev/null").returncode == 0
    assert Path("/dev/null").is_char_device()


def test_many_files(device, tmp_path):
    source = tmp_path / "many"
    source.mkdir()
    for number in range(500):
        (source / f"{number:04}").write_bytes(b"%d" % number)
    assert device("push", source, tmp_path / "there").returncode == 0
    assert device("pull", tmp_path / "there", tmp_path / "back").returncode == 0
    assert {k: v[2] for k, v in snapshot(tmp_path / "back").items()} == {
        k: v[2] for k, v in snapshot(source).items()
    }


def test_what_cannot_be_copied_says_why(device, tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 1_000_000)
    push = device("push", tmp_path / "file", "/proc/nowhere/file")
    failing(push, "/proc/nowhere/file", "No such file or directory")
    failing(device("push", tmp_path / "file", f"{tmp_path}/file/below"), "Not a directory")
    failing(device("pull", f"{tmp_path}/none", tmp_path), "No such file or directory")
    failing(device("pull", "/proc/self/mem", tmp_path / "mem"), "Input/output error")
    assert sorted(path.name for path in tmp_path.iterdir()) in (["file"], ["file", "mem"])


def test_a_full_disk_is_reported(device, tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 1_000_000)
    said = failing(device("push", tmp_path / "file", "/dev/full"))
    assert "No space left on device" in said


def test_ls_lists_mode_size_time_and_name(device, tree):
    lines = device("ls", tree).stdout.decode().splitlines()
    program = (tree / "plain").lstat()
    expected = f"{program.st_mode:08x} {program.st_size:08x} {int(program.st_mtime):08x} plain"
    assert expected in lines
    assert len(lines) == len(list(tree.iterdir())) + 2  # . and ..
