"""Bundles: what is in them, that they are made once, and what is said when they cannot be."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import deploy.harness
from deploy.errors import DeviceError
from deploy.files import sha256, write_text
from deploy.harness import adb_daemon, bundles, cache, toolchain, wheels
from deploy.harness.elf import EM_AARCH64, Elf, parse_elf, read_elf
from deploy.types import silent


def an_elf(*, machine: int = 183, needed: tuple[bytes, ...] = (), alignment: int = 65536) -> bytes:
    """A minimal ELF file: headers, one dynamic section, one string table."""
    strings = b"\0" + b"".join(name + b"\0" for name in needed) + b"libme.so\0"
    start = 64 + 2 * 56
    entries, at = [], 1
    for name in needed:
        entries.append((1, at))
        at += len(name) + 1
    entries.append((14, at))
    dynamic_size = (len(entries) + 2) * 16
    address = 0x10000
    entries += [(5, address + start + dynamic_size), (0, 0)]
    size = start + dynamic_size + len(strings)
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, address, address, size, size, alignment)
    dynamic = struct.pack(
        "<IIQQQQQQ", 2, 6, start, address + start, address + start, dynamic_size, dynamic_size, 8
    )
    return header + load + dynamic + b"".join(struct.pack("<qQ", *e) for e in entries) + strings


def test_elf_headers_are_read() -> None:
    elf = parse_elf(an_elf(needed=(b"libc.so.6", b"libm.so.6"), alignment=16384))
    assert elf == Elf(EM_AARCH64, ("libc.so.6", "libm.so.6"), "libme.so", 16384)


def test_elf_agrees_with_readelf_on_this_python() -> None:
    library = Path(np_core())
    shown = subprocess.run(["readelf", "-dW", library], capture_output=True, text=True, check=True)
    expected = [
        line.partition("[")[2].rstrip("]") for line in shown.stdout.splitlines() if "NEEDED" in line
    ]
    assert list(read_elf(library).needed) == expected
    assert expected


def np_core() -> str:
    from numpy._core import _multiarray_umath

    assert _multiarray_umath.__file__ is not None
    return _multiarray_umath.__file__


@given(st.binary(max_size=400))
def test_any_content_is_an_elf_file_or_a_value_error(data: bytes) -> None:
    for content in (data, b"\x7fELF\x02\x01" + data):
        with contextlib.suppress(ValueError):
            parse_elf(content)


@given(st.data())
def test_a_damaged_elf_file_is_read_or_a_value_error(data: st.DataObject) -> None:
    whole = bytearray(an_elf(needed=(b"libc.so.6",)))
    position = data.draw(st.integers(0, len(whole) - 1))
    whole[position] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    with contextlib.suppress(ValueError):
        parse_elf(bytes(whole[:cut]))


def assert_complete(bundle: deploy.harness.Bundle, machine: int, alignment: int) -> None:
    for name in bundle.files:
        elf = read_elf(bundle.folder / name)
        assert elf.machine == machine, name
        assert elf.alignment >= alignment, name
        assert set(elf.needed) <= set(bundle.files), name
    for name in bundle.executables:
        assert os.access(bundle.folder / name, os.X_OK), name


@pytest.mark.slow
def test_an_arm64_bundle_holds_all_that_it_needs() -> None:
    bundle = deploy.harness.bundle("arm64-v8a")
    assert_complete(bundle, EM_AARCH64, 16384)
    assert {"bench_runner", "libps_executorch.so", "libps_onnxruntime.so"} <= set(bundle.files)
    assert {"ld-linux-aarch64.so.1", "libc.so.6", "libstdc++.so.6"} <= set(bundle.files)
    assert (
        "libexecutorch_backend_xnnpack.so" in read_elf(bundle.folder / "libps_executorch.so").needed
    )
    assert bundle.versions["executorch"] == wheels.installed_versions()["executorch"]


@pytest.mark.slow
def test_the_bundle_of_this_machine_holds_all_that_it_needs_and_comes_back_from_the_cache() -> None:
    abi = deploy.harness.native_abi()
    first = deploy.harness.bundle(abi)
    said: list[str] = []
    again = deploy.harness.bundle(abi, said.append)
    assert again == first
    assert said == []
    assert_complete(first, toolchain.target(abi).elf_machine, 4096)
    stored = json.loads((first.folder / "bundle.json").read_text())
    assert stored["files"] == first.files
    assert str(first.folder) not in (first.folder / "bundle.json").read_text()


@pytest.mark.slow
def test_no_path_of_this_machine_gets_into_our_binaries() -> None:
    """They would make equal sources give different bundles, and tell where they were built."""
    for abi in ("arm64-v8a", deploy.harness.native_abi()):
        bundle = deploy.harness.bundle(abi)
        for name in ("bench_runner", "libps_executorch.so", "libps_onnxruntime.so"):
            content = (bundle.folder / name).read_bytes()
            assert b"site-packages" not in content, name
            assert str(bundle.folder.parent).encode() not in content, name
            assert str(Path(__file__).parents[2]).encode() not in content, name


@pytest.mark.slow
def test_the_arm64_adb_daemon_is_static() -> None:
    elf = read_elf(deploy.harness.adbd("arm64-v8a"))
    assert (elf.machine, elf.needed) == (EM_AARCH64, ())
    assert deploy.harness.adbd("arm64-v8a") == deploy.harness.adbd("arm64-v8a")


def test_an_unknown_abi_names_the_known_ones() -> None:
    for build in (deploy.harness.bundle, deploy.harness.adbd):
        with pytest.raises(DeviceError, match=r"riscv64.*arm64-v8a, x86_64"):
            build("riscv64")


def test_a_missing_compiler_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("POCKETSHIP_CACHE", str(tmp_path / "cache"))
    other = {"x86_64": "arm64-v8a", "aarch64": "x86_64"}[platform.machine()]
    for build in (deploy.harness.bundle, deploy.harness.adbd):
        with pytest.raises(DeviceError, match=r"apt-get install g\+\+-") as caught:
            build(other)
        assert caught.value.exit_code == 6
        with pytest.raises(DeviceError, match=r"g\+\+ is missing.*apt-get install g\+\+"):
            build(deploy.harness.native_abi())
    assert not (tmp_path / "cache").exists()


def test_a_missing_wheel_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "RUNTIMES", ("no-such-runtime",))
    with pytest.raises(DeviceError, match="pip install no-such-runtime"):
        wheels.installed_versions()


def test_a_failed_build_leaves_nothing_and_names_its_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sources = tmp_path / "harness" / "adbd"
    sources.mkdir(parents=True)
    (sources / "CMakeLists.txt").write_text('message(FATAL_ERROR "no such thing")\n')
    monkeypatch.setenv("POCKETSHIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(adb_daemon, "harness_dir", lambda: tmp_path / "harness")
    with pytest.raises(DeviceError, match=r"building adbd .* failed: CMake Error.*\.log") as caught:
        deploy.harness.adbd(deploy.harness.native_abi())
    assert "\n" not in str(caught.value)
    left = {path.name for path in (tmp_path / "cache" / "harness").iterdir()}
    assert {name for name in left if not name.endswith((".lock", ".log"))} == set()


def test_a_cache_that_cannot_be_written_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("POCKETSHIP_CACHE", str(tmp_path / "file"))
    with pytest.raises(DeviceError, match=r"file.*POCKETSHIP_CACHE"):
        deploy.harness.adbd(deploy.harness.native_abi())


def a_bundle(folder: Path) -> bundles.Bundle:
    folder.mkdir()
    (folder / "bench_runner").write_bytes(b"program")
    digest = sha256(folder / "bench_runner")
    manifest = bundles.BundleManifest(
        abi="x86_64", files={"bench_runner": digest}, launch=("./bench_runner",), versions={}
    )
    write_text(folder / bundles.MANIFEST, manifest.model_dump_json())
    return bundles.load(folder)


def test_a_changed_bundle_is_not_loaded(tmp_path: Path) -> None:
    bundle = a_bundle(tmp_path / "bundle")
    (bundle.folder / "bench_runner").write_bytes(b"another program")
    with pytest.raises(ValueError, match="bench_runner changed"):
        bundles.load(bundle.folder)


def test_the_hash_of_a_bundle_is_that_of_its_content(tmp_path: Path) -> None:
    one, two = a_bundle(tmp_path / "one"), a_bundle(tmp_path / "two")
    assert one.hash == two.hash
    changed = one.model_copy(update={"files": {"bench_runner": "0" * 64}})
    assert changed.hash != one.hash


def test_what_is_cached_is_made_again_when_it_is_damaged(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        (folder / "content").write_text("good")

    def is_good(folder: Path) -> bool:
        return (folder / "content").read_text() == "good"

    folder = cache.made_once(tmp_path, "key", make, is_good=is_good, progress=silent)
    (folder / "content").write_text("bad")
    cache.made_once(tmp_path, "key", make, is_good=is_good, progress=silent)
    assert is_good(folder)


def test_an_interrupted_maker_leaves_nothing_that_is_taken_for_whole(tmp_path: Path) -> None:
    def interrupted(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.made_once(tmp_path, "key", interrupted, is_good=lambda _: True, progress=silent)
    assert not (tmp_path / "key").exists()
    # What kill -9 leaves is removed by the next maker.
    (tmp_path / ".key.1.making").mkdir()
    cache.made_once(tmp_path, "key", lambda _: None, is_good=lambda _: True, progress=silent)
    assert {path.name for path in tmp_path.iterdir()} == {"key", ".key.lock"}


def test_two_processes_make_a_folder_once(tmp_path: Path) -> None:
    """The second waits for the first, says so, and takes what the first made."""
    code = (
        "import sys, pathlib\n"
        "from deploy.harness.cache import made_once\n"
        "def make(folder):\n"
        "    print('making', flush=True); sys.stdin.readline(); (folder / 'x').touch()\n"
        "made_once(pathlib.Path(sys.argv[1]), 'key', make, is_good=lambda f: True,\n"
        "          progress=lambda line: print(line, flush=True))\n"
        "print('done', flush=True)\n"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    ]
    assert started[0].stdout is not None
    assert started[0].stdout.readline() == "making\n"
    started.append(
        subprocess.Popen(
            started[0].args,
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    )
    assert started[1].stdout is not None
    assert started[1].stdout.readline().startswith("waiting")
    first, _ = started[0].communicate("go\n", timeout=60)
    second, _ = started[1].communicate(timeout=60)
    assert (first, second) == ("done\n", "done\n")


def test_an_interrupted_tool_is_killed_with_its_children(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = f"sleep 300 & echo $! > {pid_file}; echo '[1/2] started'; wait"

    def interrupt(line: str) -> None:
        if "1/2" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toolchain.run_logged(
            ["sh", "-c", script], what="test", log=tmp_path / "log", progress=interrupt
        )
    child = int(pid_file.read_text())
    # An orphan of a killed group is gone, or a zombie that init has yet to collect.
    while state_of(child) not in ("", "Z"):
        time.sleep(0.01)


def state_of(pid: int) -> str:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return text.partition("\nState:\t")[2][:1]


def test_progress_tells_how_far_a_build_is(tmp_path: Path) -> None:
    said: list[str] = []
    toolchain.run_logged(
        ["printf", "[1/2] a\\nother\\n[2/2] b\\n"],
        what="building",
        log=tmp_path / "log",
        progress=said.append,
    )
    assert said == ["building", "building: 1/2", "building: 2/2"]
    assert (tmp_path / "log").read_text() == "[1/2] a\nother\n[2/2] b\n"
