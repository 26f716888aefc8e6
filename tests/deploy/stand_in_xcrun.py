"""A stand-in for a Mac's ``xcrun``: a real program that answers in the documented formats.

It keeps devices in ``state.json`` of its folder and writes every call to ``calls.jsonl``. ``simctl
spawn`` starts what its ``swiftc`` "compiled": this file, which under any other name than ``xcrun``
is a runner for the toy models of the tests, with the contract of the Swift one. ``faults.json``
makes a tool misbehave. All this shows that our side keeps to the formats; it shows nothing of a
Mac. Standard library only: it runs outside of any environment.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn


def _fail(code: int, text: str) -> NoReturn:
    sys.stderr.write(text + "\n")
    raise SystemExit(code)


def _sim_error(code: int, text: str) -> NoReturn:
    head = (
        "An error was encountered processing the command (domain=com.apple.CoreSimulator.SimError"
    )
    _fail(code & 0xFF, f"{head}, code={code}):\n{text}")


def _find(state: Any, udid: str) -> Any:
    for rows in state["devices"].values():
        for row in rows:
            if row["udid"] == udid:
                return row
    return _sim_error(405, f"Invalid device: {udid}")


def _simctl(home: Path, faults: Any, verb: str, *rest: str) -> None:
    path = home / "state.json"
    state = json.loads(path.read_text())
    if verb == "list":
        print(faults["list"] if "list" in faults else json.dumps(state, indent=2))
        return
    if verb == "create":
        name, kind, system = rest
        digits = os.urandom(16).hex().upper()
        parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
        row = {"udid": "-".join(parts), "isAvailable": True, "state": "Shutdown"}
        row.update(name=name, deviceTypeIdentifier=kind)
        state["devices"].setdefault(system, []).append(row)
        print(faults.get("created", row["udid"]))
    elif verb == "bootstatus":
        if faults.get("boot") == "hangs":
            time.sleep(600)
        if "boot" in faults:
            _sim_error(405, faults["boot"])
        _find(state, rest[0])["state"] = "Booted"
    elif verb == "shutdown":
        row = _find(state, rest[0])
        if row["state"] == "Shutdown":
            _sim_error(405, "Unable to shutdown device in current state: Shutdown")
        row["state"] = "Shutdown"
    elif verb == "delete":
        _find(state, rest[0])
        for rows in state["devices"].values():
            rows[:] = [row for row in rows if row["udid"] != rest[0]]
    elif verb == "spawn":
        _spawn(state, faults, *rest)
    path.write_text(json.dumps(state))


def _spawn(state: Any, faults: Any, udid: str, *argv: str) -> None:
    row = _find(state, udid)
    if faults.get("spawn") == "shut down":
        row["state"] = "Shutdown"
        Path(__file__).with_name("state.json").write_text(json.dumps(state))
    if row["state"] != "Booted":
        _sim_error(405, f"Unable to lookup in current state: {row['state']}")
    # A session of its own: on a Mac the program is no child of simctl and does not end with it.
    runner = subprocess.Popen(argv, start_new_session=True)
    code = runner.wait()
    if code < 0:
        words = signal.strsignal(-code)
        _fail(128 - code, f"Child process terminated with signal {-code}: {words}")
    raise SystemExit(code)


def _tool(home: Path, faults: Any, words: list[str]) -> None:
    if words[0] == "simctl":
        _simctl(home, faults, *words[1:])
    elif words[:2] == ["coremlcompiler", "version"]:
        print("3405.2.1")
    elif words[:2] == ["coremlcompiler", "compile"]:
        if "compile" in faults:
            _fail(1, faults["compile"])
        source, target = Path(words[2]), Path(words[3])
        shutil.copytree(source, target / f"{source.stem}.mlmodelc")
    elif "--show-sdk-version" in words:
        print("18.0")
    elif words[2:] == ["swiftc", "--version"]:
        print("Apple Swift version 6.0 (swiftlang-6.0.0.9.10 clang-1600.0.26.2)")
    elif "swiftc" in words:
        if "swiftc" in faults:
            _fail(1, faults["swiftc"])
        assert all(Path(word).is_file() for word in words if word.endswith(".swift"))
        shutil.copy(__file__, words[words.index("-o") + 1])
    else:
        _fail(72, f"xcrun: error: unable to find utility {words[0]!r}")


def _runner(words: list[str]) -> None:
    """``y = x @ weight`` for each sample, with the Swift runner's files and exit codes."""
    options = dict(zip(words[::2], words[1::2], strict=True))
    model = Path(options["--model"])
    weight = json.loads((model / "weight.json").read_text())
    Path(options["--pid-file"]).write_text(f"{os.getpid()}\n")
    behaviour = json.loads((model / "behaviour.json").read_text())
    if behaviour.get("hangs"):
        time.sleep(600)
    if "signal" in behaviour:
        os.kill(os.getpid(), behaviour["signal"])
    if "exit" in behaviour:
        _fail(*behaviour["exit"])
    features = json.loads(Path(options["--features"]).read_text())
    data = Path(options["--inputs"]).read_bytes()
    (given,) = features["inputs"]
    (wanted,) = features["outputs"]
    if given["name"] != "x" or wanted["name"] != "var_7":
        _fail(4, f"bench_runner: the model's inputs are x, not {given['name']}: {model}")
    samples, count = int(options.get("--samples", 0)), len(weight)
    need = 4 * count * max(samples, 1)
    if len(data) != need:
        _fail(4, f"bench_runner: the inputs have {len(data)} bytes, the model needs {need}: x")
    y: list[float] = []
    for x in struct.iter_unpack(f"<{count}f", data):
        y += [
            sum(a * row[i] for a, row in zip(x, weight, strict=True)) for i in range(len(weight[0]))
        ]
    Path(options["--outputs"]).write_bytes(struct.pack(f"<{len(y)}f", *y))
    result = {
        "schema": 1,
        "runner_version": "0.2.0",
        "backend": "coreml",
        "runtime_version": "iOS 18.0 (Build 22A3351)",
        "arch": "arm64",
        "model_bytes": features["model_bytes"],
        "threads": int(options["--threads"]),
        "cpu_mask": None,
        "affinity_applied": False,
        "load_ns": 4_000_000,
        "first_ns": 3_000_000,
        "warmup_ns": [2_000_000] * int(options["--warmup-iterations"]),
        "steady_ns": [1_000_000] * int(options["--iterations"]),
        "steady_minutes": [int(options["--iterations"])],
        "stopped_by": "iterations",
        "samples": samples,
        "baseline_rss_kib": 4096,
        "loaded_rss_kib": 8192,
        "peak_rss_kib": 9216,
        "phys_footprint": {"baseline_kib": 2048, "loaded_kib": 5120, "peak_kib": 6144},
        "inputs": [{**given, "bytes": 4 * count}],
        "outputs": [{**wanted, "bytes": 4 * len(weight[0])}],
    }
    text = behaviour.get("result", json.dumps(result))
    Path(options["--result"]).write_text(text)


def _main() -> None:
    here = Path(__file__).resolve()
    if here.name != "xcrun":
        _runner(sys.argv[1:])
        return
    with (here.parent / "calls.jsonl").open("a") as log:
        log.write(json.dumps(sys.argv[1:]) + "\n")
    faults = here.parent / "faults.json"
    _tool(here.parent, json.loads(faults.read_text()) if faults.exists() else {}, sys.argv[1:])


if __name__ == "__main__":
    _main()
