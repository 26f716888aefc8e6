"""Who gets in, and what happens to those who do not speak the protocol."""

import base64
import socket
import struct

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.android_harness.adbd.wire import (
    PUBLIC_KEY,
    SIGNATURE,
    TOKEN,
    VERSION,
    VERSION_WITH_CHECKSUMS,
    Wire,
    android_public_key,
    packet,
    sign,
)


def challenge(wire):
    """Ask to connect; return the token."""
    wire.send(b"CNXN", VERSION, 1 << 20, b"host::")
    return next_token(wire)


def next_token(wire):
    name, kind, _, token = wire.receive()
    assert (name, kind, len(token)) == (b"AUTH", TOKEN, 20)
    return token


def stays_out(wire):
    """What an unauthorised client asks for is neither answered nor done."""
    wire.send(b"OPEN", 1, 0, b"shell:echo in\0")
    # The next answer is to this, so nothing came before it.
    wire.send(b"AUTH", SIGNATURE, 0, b"\1" * 256)
    next_token(wire)
    return True


@pytest.mark.parametrize("version", [VERSION_WITH_CHECKSUMS, VERSION])
def test_the_right_key_gets_in_and_reads_the_banner(daemon, key, version):
    with Wire(daemon.port, key, version=version) as wire:
        assert wire.banner.startswith(b"device::ro.product.name=pocketship;")
        assert b"features=shell_v2," in wire.banner
        assert wire.max_payload == 1 << 20
        # In both directions, with checksums and without.
        assert wire.run("cat", b"abc" * 1000) == (b"abc" * 1000, b"", 0)


@pytest.mark.parametrize("exponent", [3, 65537])
def test_every_authorised_key_gets_in(start_daemon, tmp_path, exponent):
    mine = [rsa.generate_private_key(exponent, 2048) for _ in range(3)]
    keys = tmp_path / "keys"
    lines = [android_public_key(key.public_key()) for key in mine]
    keys.write_text("# the lab's keys\n\n" + "\r\n".join(lines))
    daemon = start_daemon(keys=keys)
    for key in mine:
        with Wire(daemon.port, key) as wire:
            assert wire.run("exit 3")[2] == 3


def test_a_wrong_signature_gets_a_new_token_and_the_right_one_still_counts(daemon, key):
    with Wire(daemon.port, handshake=False) as wire:
        token = challenge(wire)
        signature = sign(key, token)
        for at in (0, 100, 255):
            broken = bytearray(signature)
            broken[at] ^= 1
            wire.send(b"AUTH", SIGNATURE, 0, bytes(broken))
            new = next_token(wire)
            assert new != token
        for nonsense in (b"", b"\0" * 256, b"\xff" * 256, signature + b"\0", signature[:-1]):
            wire.send(b"AUTH", SIGNATURE, 0, nonsense)
            new = next_token(wire)
        # The signature of an earlier token is worth nothing.
        wire.send(b"AUTH", SIGNATURE, 0, signature)
        new = next_token(wire)
        wire.send(b"AUTH", SIGNATURE, 0, sign(key, new))
        assert wire.receive()[0] == b"CNXN"


def test_a_forged_padding_is_refused(start_daemon, tmp_path):
    """With e = 3 a cube root passes any check that ignores what follows the digest (CVE-2006-4339)."""
    key = rsa.generate_private_key(3, 2048)
    keys = tmp_path / "keys"
    keys.write_text(android_public_key(key.public_key()))
    with Wire(start_daemon(keys=keys).port, handshake=False) as wire:
        token = challenge(wire)
        prefix = bytes.fromhex("3021300906052b0e03021a05000414")
        start = b"\0\1\xff\xff\xff\xff\xff\xff\xff\xff\0" + prefix + token
        target = int.from_bytes(start + b"\xff" * (256 - len(start)), "big")
        root = 1 << 700
        while (better := (2 * root + target // (root * root)) // 3) < root:
            root = better
        forged = root.to_bytes(256, "big")
        assert pow(root, 3).to_bytes(256, "big").startswith(start)
        wire.send(b"AUTH", SIGNATURE, 0, forged)
        next_token(wire)


def test_an_offered_key_is_logged_and_not_let_in(start_daemon):
    daemon = start_daemon()
    stranger = rsa.generate_private_key(65537, 2048)
    line = android_public_key(stranger.public_key()).removesuffix(" test@wire")
    with Wire(daemon.port, handshake=False) as wire:
        token = challenge(wire)
        wire.send(b"AUTH", SIGNATURE, 0, sign(stranger, token))
        next_token(wire)
        wire.send(b"AUTH", PUBLIC_KEY, 0, line.encode() + b" evil\x1b[2J\n\0")
        assert stays_out(wire)
    from hashlib import sha256

    digest = base64.b64encode(sha256(base64.b64decode(line)).digest()).decode().rstrip("=")
    assert f"not authorised: SHA256:{digest} evil?[2J?\n" in daemon.log()


def test_offering_an_authorised_key_without_signing_does_not_let_in(daemon, key):
    with Wire(daemon.port, handshake=False) as wire:
        challenge(wire)
        wire.send(b"AUTH", PUBLIC_KEY, 0, android_public_key(key.public_key()).encode() + b"\0")
        assert stays_out(wire)


def test_nothing_is_served_before_the_handshake(daemon, key):
    with Wire(daemon.port, handshake=False) as wire:
        wire.send(b"AUTH", SIGNATURE, 0, b"x" * 256)
        wire.send(b"OPEN", 1, 0, b"shell:echo in\0")
        challenge(wire)
        assert stays_out(wire)


def test_guessing_signatures_ends_the_connection(daemon):
    with Wire(daemon.port, handshake=False) as wire:
        challenge(wire)
        for _ in range(255):
            wire.send(b"AUTH", SIGNATURE, 0, b"\1" * 256)
            next_token(wire)
        wire.send(b"AUTH", SIGNATURE, 0, b"\1" * 256)
        assert wire.is_closed()


def test_a_second_connect_starts_over(daemon, key):
    with Wire(daemon.port, key) as wire:
        wire.stream("shell,v2,raw:sleep 1000")
        challenge(wire)
        assert stays_out(wire)


def test_without_auth_everybody_gets_in(adbd_program, tmp_path):
    from tests.android_harness.adbd.daemon import Daemon

    open_daemon = Daemon(adbd_program, tmp_path, ["--no-auth"])
    with Wire(open_daemon.port) as wire:
        assert wire.run("echo in")[0] == b"in\n"
    assert open_daemon.stop() == 0


GOOD = packet(b"CNXN", VERSION, 1 << 20, b"host::")


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: phone\r\n\r\n", id="http"),
        pytest.param(b"\0" * 64, id="zeros"),
        pytest.param(b"\xff" * 64, id="ones"),
        pytest.param(GOOD[:20] + bytes(4) + GOOD[24:], id="wrong magic"),
        pytest.param(
            GOOD[:12] + struct.pack("<I", 4097) + GOOD[16:], id="too long before the handshake"
        ),
        pytest.param(GOOD[:12] + struct.pack("<I", 0xFFFFFFFF) + GOOD[16:], id="longest"),
        pytest.param(
            packet(b"CNXN", VERSION_WITH_CHECKSUMS, 4096, b"host::", checksum=1), id="wrong sum"
        ),
        pytest.param(packet(b"CNXN", VERSION, 0, b"host::"), id="takes no payload"),
    ],
)
def test_garbage_ends_that_connection_only(daemon, key, garbage):
    with Wire(daemon.port, handshake=False) as wire:
        wire.socket.sendall(garbage)
        assert wire.is_closed()
    with Wire(daemon.port, key) as wire:
        assert wire.run("true")[2] == 0


def test_strangers_cannot_fill_the_daemon(daemon, key):
    """More silent connections than it serves: the oldest of them go, an authorised one stays."""
    with Wire(daemon.port, key) as mine:
        silent = [socket.create_connection(("127.0.0.1", daemon.port)) for _ in range(64)]
        try:
            with Wire(daemon.port, key) as late:
                assert late.run("true")[2] == 0
            assert mine.run("true")[2] == 0
            silent[0].settimeout(30)
            assert silent[0].recv(1) == b""
        finally:
            for connection in silent:
                connection.close()
