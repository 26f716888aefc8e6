"""Streams over one connection: many at once, flow control, ends, and what breaks the rules."""

import os
import signal
import struct
from pathlib import Path

import pytest

from tests.android_harness.adbd.daemon import eventually
from tests.android_harness.adbd.wire import (
    CLOSE_STDIN,
    EXIT,
    STDIN,
    STDOUT,
    VERSION_WITH_CHECKSUMS,
    Wire,
    frame,
    frames,
    output,
    packet,
)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def pid_of(stream):
    """Reads the number that the stream's command printed first (shell, version 2)."""
    data = b""
    while b"\n" not in data:
        kind, length = struct.unpack("<BI", stream.read(5))
        assert kind == STDOUT
        data += stream.read(length)
    return int(data)


@pytest.mark.parametrize(
    "service",
    ["", "shell", "shellfish:ls", "shell2:", "jdwp:1", "tcp:22", "sync", "sync:x", "root:"],
)
def test_an_unknown_service_is_refused(wire, service):
    assert wire.open(service) is None
    assert wire.run("true")[2] == 0


@pytest.mark.parametrize("service", ["reboot:", "reboot:bootloader"])
def test_reboot_is_refused_where_no_program_is_named(wire, service):
    assert wire.open(service) is None


def test_reboot_runs_the_named_program(start_daemon, key, tmp_path):
    program = tmp_path / "reboot"
    program.write_text(f"#!/bin/sh\necho going > {tmp_path}/asked\n")
    program.chmod(0o755)
    with Wire(start_daemon("--reboot", program).port, key) as wire:
        assert wire.open("reboot:recovery") is None
        wire.stream("reboot:").read_to_end()
    assert (tmp_path / "asked").read_text() == "going\n"


def test_a_close_is_answered_with_a_close(wire):
    stream = wire.stream("shell,v2,raw:cat")
    stream.close()
    assert stream.closed


def test_packets_for_streams_that_do_not_exist_change_nothing(wire):
    stream = wire.stream("shell,v2,raw:cat")
    for name in (b"OKAY", b"WRTE", b"CLSE"):
        for local, remote in (
            (stream.local, stream.remote + 1),
            (stream.local + 1, stream.remote),
            (0, 0),
            (0xFFFFFFFF, 0xFFFFFFFF),
        ):
            wire.send(name, local, remote, b"nonsense" if name == b"WRTE" else b"")
    wire.send(b"OPEN", 0, 0, b"shell:echo no\0")
    wire.send(b"WHAT", 1, 2, b"unknown command")
    stream.write(frame(STDIN, b"still here") + frame(CLOSE_STDIN))
    assert output(stream.read_to_end(), STDOUT) == b"still here"


def test_a_packet_longer_than_agreed_ends_the_connection(wire):
    stream = wire.stream("shell,v2,raw:cat")
    header = struct.pack("<4I", 0x45545257, stream.local, stream.remote, (1 << 20) + 1)
    wire.socket.sendall(header + struct.pack("<2I", 0, 0x45545257 ^ 0xFFFFFFFF))
    assert wire.is_closed()


def test_a_wrong_checksum_of_an_old_client_ends_the_connection(daemon, key):
    with Wire(daemon.port, key, version=VERSION_WITH_CHECKSUMS) as wire:
        wire.socket.sendall(packet(b"OPEN", 1, 0, b"shell:ls\0", checksum=7))
        assert wire.is_closed()


@pytest.mark.parametrize("max_payload", [512, 4096, 1 << 18])
def test_no_packet_is_larger_than_the_client_takes(daemon, key, tmp_path, max_payload):
    content = os.urandom(300_000)
    (tmp_path / "file").write_bytes(content)
    with Wire(daemon.port, key, max_payload=max_payload) as wire:
        stream = wire.stream(f"exec:cat {tmp_path}/file")
        received = b""
        while True:
            name, remote, _, payload = wire.receive()
            if name == b"CLSE":
                break
            assert len(payload) <= max_payload
            received += payload
            wire.send(b"OKAY", stream.local, remote)
    assert received == content


def test_one_write_is_in_flight_until_it_is_acknowledged(wire):
    first = wire.stream("exec:yes")
    name, remote, _, payload = wire.receive()
    assert (name, remote) == (b"WRTE", first.remote)
    assert payload
    # `first` is owed an OKAY and stays silent; another stream runs to its end meanwhile.
    assert wire.run("echo other") == (b"other\n", b"", 0)
    wire.send(b"OKAY", first.local, first.remote)
    name, remote, _, payload = wire.receive()
    assert (name, remote) == (b"WRTE", first.remote)


def test_input_that_nobody_reads_is_not_acknowledged_and_blocks_no_other(wire, daemon):
    stuck = wire.stream("shell,v2,raw:sleep 1000")
    stuck.send(frame(STDIN, b"x" * 500_000))
    assert wire.run("echo other") == (b"other\n", b"", 0)
    # A client that goes on all the same loses the stream, not the connection.
    for _ in range(5):
        stuck.send(frame(STDIN, b"x" * 900_000))
    name, remote, _, _ = wire.receive()
    assert (name, remote) == (b"CLSE", stuck.remote)
    assert wire.run("echo other") == (b"other\n", b"", 0)


def test_slow_input_arrives_whole(wire):
    content = os.urandom(400_000)
    shell = wire.stream("shell,v2,raw:(head -c 1; cat) | cat")
    for at in range(0, len(content), 100_000):
        shell.write(frame(STDIN, content[at : at + 100_000]))
    shell.write(frame(CLOSE_STDIN))
    assert output(shell.read_to_end(), STDOUT) == content


def test_a_client_that_does_not_read_is_not_remembered_without_end(daemon, key):
    def resident_kib():
        status = Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

    def cpu_seconds():
        fields = Path(f"/proc/{daemon.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    with Wire(daemon.port, key) as warm:
        warm.run("true")
    before = resident_kib()
    refused = b"".join(packet(b"OPEN", number, 0, b"nothing:\0") for number in range(1, 1000))
    with Wire(daemon.port, key) as wire:
        wire.socket.settimeout(1)
        with pytest.raises(TimeoutError):
            for _ in range(3000):  # the answers to all of them would be 72 MB
                wire.socket.sendall(refused)
        assert resident_kib() - before < 16 * 1024
        # While it waits for the client to read, it does nothing at all.
        spent = cpu_seconds()
        with pytest.raises(TimeoutError):
            wire.socket.sendall(refused * 1000)
        assert cpu_seconds() - spent < 0.05


def test_an_open_flood_is_limited_and_survived(daemon, key):
    with Wire(daemon.port, key) as wire:
        for local in range(1, 301):
            wire.send(b"OPEN", local, 0, b"exec:sleep 1000\0")
        answers = [wire.receive()[0] for _ in range(300)]
        assert answers.count(b"OKAY") == 128
        assert answers.count(b"CLSE") == 172
        assert len(daemon.children()) >= 128
    eventually(lambda: not daemon.children(), "the flood's programs are gone")


def test_a_dropped_connection_takes_its_programs_along(daemon, key):
    with Wire(daemon.port, key) as wire:
        polite = pid_of(wire.stream("shell,v2,raw:echo $$; exec sleep 1000"))
        deaf = pid_of(wire.stream("shell,v2,raw:trap '' HUP TERM; echo $$; sleep 1000; sleep 1000"))
        worker = pid_of(wire.stream("shell,v2,raw:sleep 1000 & echo $!; wait"))
        terminal = wire.stream("shell,v2,pty:echo $$; exec sleep 1000")
        on_terminal = pid_of(terminal)
    for pid in (polite, deaf, worker, on_terminal):
        eventually(lambda pid=pid: not alive(pid), f"process {pid} is gone")
    eventually(lambda: not daemon.children(), "no zombies")


def test_a_closed_stream_takes_its_program_along(wire, daemon):
    stream = wire.stream("shell,v2,raw:echo $$; exec sleep 1000")
    pid = pid_of(stream)
    stream.close()
    eventually(lambda: not alive(pid), "the program is gone")
    assert wire.run("echo other")[0] == b"other\n"


def test_exec_finishes_after_its_stream_but_not_after_its_connection(daemon, key, tmp_path):
    script = "cat > {0}/input; echo $$ > {0}/part; mv {0}/part {0}/pid; exec sleep 1000"
    with Wire(daemon.port, key) as wire:
        stream = wire.stream("exec:" + script.format(tmp_path))
        stream.write(b"all of it")
        stream.close()
        eventually((tmp_path / "pid").exists, "it goes on")
        assert (tmp_path / "input").read_bytes() == b"all of it"
        pid = int((tmp_path / "pid").read_text())
        assert wire.run("true")[2] == 0
        assert alive(pid)
    eventually(lambda: not alive(pid), "it is gone with the connection")


def test_programs_end_with_their_stream_also_below_nohup(start_daemon, key):
    # nohup ignores SIGHUP for all that is started below it; a shell cannot undo that.
    usual = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        daemon = start_daemon()
    finally:
        signal.signal(signal.SIGHUP, usual)
    with Wire(daemon.port, key) as wire:
        stream = wire.stream("shell,v2,raw:echo $$; grep SigIgn /proc/$$/status; exec sleep 1000")
        data = b""
        while data.count(b"\n") < 2:
            _, length = struct.unpack("<BI", stream.read(5))
            data += stream.read(length)
        pid, ignored = int(data.split()[0]), int(data.split()[-1], 16)
        assert not ignored & (1 << (signal.SIGHUP - 1))
        stream.close()
        eventually(lambda: not alive(pid), "SIGHUP ended it")


def test_exec_that_writes_to_nobody_ends(wire, daemon):
    before = set(daemon.children())
    stream = wire.stream("exec:exec yes")
    (yes,) = set(daemon.children()) - before
    stream.close()
    eventually(lambda: not alive(yes), "SIGPIPE ended it")


def test_an_interactive_shell_of_the_first_version_has_a_terminal(wire):
    shell = wire.stream("shell:")
    shell.write(b"tty; echo $TERM; exit\n")
    said = shell.read_to_end()
    assert b"/dev/pts/" in said
    assert b"dumb\r\n" in said


def test_what_a_command_leaves_in_the_background_lives_on(wire):
    out, _, code = wire.run("sleep 1000 >/dev/null 2>&1 </dev/null & echo $!")
    assert code == 0
    pid = int(out)
    try:
        assert alive(pid)
    finally:
        os.kill(pid, 9)


def test_nothing_leaks(daemon, key):
    def round_trip():
        with Wire(daemon.port, key) as wire:
            wire.run("echo x")
            wire.open("nothing:")
            wire.stream("shell,v2,pty:sleep 1000")
            wire.stream("sync:").write(b"LIST" + struct.pack("<I", 1) + b"/")

    round_trip()
    eventually(lambda: not daemon.children(), "no child is left")
    before = daemon.descriptors()
    for _ in range(20):
        round_trip()
    eventually(lambda: not daemon.children(), "no child is left")
    eventually(lambda: daemon.descriptors() <= before, "no descriptor is left")


def test_sigterm_ends_it_with_running_programs(start_daemon, key):
    daemon = start_daemon()
    with Wire(daemon.port, key) as wire:
        pids = [
            pid_of(wire.stream("shell,v2,raw:echo $$; exec sleep 1000")),
            pid_of(wire.stream("shell,v2,raw:trap '' HUP; echo $$; sleep 1000; sleep 1000")),
        ]
        assert daemon.stop() == 0
        assert wire.is_closed()
    for pid in pids:
        eventually(lambda pid=pid: not alive(pid), f"process {pid} is gone")


def test_frames_cut_anywhere_are_put_together(wire):
    """The client may cut the shell protocol's frames at any byte."""
    message = frame(STDIN, b"hello ") + frame(9, b"unknown") + frame(STDIN, b"world")
    message += frame(STDIN) + frame(CLOSE_STDIN)
    shell = wire.stream("shell,v2,raw:cat; exit 9")
    for byte in message:
        shell.write(bytes([byte]))
    got = list(frames(shell.read_to_end()))
    assert b"".join(content for kind, content in got if kind == STDOUT) == b"hello world"
    assert got[-1] == (EXIT, b"\x09")
