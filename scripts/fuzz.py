"""Fuzzing for a bounded time: `make fuzz SECONDS=60`.

    python -m scripts.fuzz [--seconds 60] [--parts adbd,runner,models]

``adbd`` and ``runner`` are coverage-guided (clang's libFuzzer with the address and undefined
sanitizers, android_harness/fuzz); ``models`` gives damaged model files to the real runner, whose
runtimes are prebuilt and not instrumented. Each part gets ``--seconds``. What made something crash
is kept in build/fuzz/<part>/. Exit code: 0 nothing found, 1 something found, 6 a part did not run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from deploy import harness
from deploy.errors import EXIT_INTERRUPTED, PocketshipError
from deploy.files import write_text
from deploy.harness.toolchain import cmake_build
from deploy.paths import harness_dir

ROOT = Path("build/fuzz")
PARTS = ("adbd", "runner", "models")
_GUIDED = ("adbd", "runner")
_CONTAINED = {0, 3, 4, 5, 6}
"""The runner's own words on a model: done, model, inputs, runtime, inference."""

_MODEL_TIMEOUT_S = 60.0
_MODEL_MEMORY = 4 << 30
_NO_SANDBOX = 77


@dataclass
class Outcome:
    """What became of one part."""

    part: str
    seconds: float = 0.0
    executions: int = 0
    found: int = 0
    note: str = ""
    not_run: str = ""


def say(line: str) -> None:
    """Progress, apart from the result on stdout."""
    print(f"fuzz: {line}", file=sys.stderr, flush=True)


def guided(part: str, program: Path, seconds: int) -> Outcome:
    """Run one libFuzzer program in a fresh folder, which is also its sandbox."""
    folder = (ROOT / part).resolve()
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(_adbd_seeds() if part == "adbd" else _runner_seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    (folder / "words").write_text("".join(f'"{word}"\n' for word in _WORDS[part]))
    before = _kept_by_the_fuzzer(folder)
    start = time.monotonic()
    done = subprocess.run(
        [
            str(program),
            *("corpus", "-dict=words", "-artifact_prefix=./", f"-max_total_time={seconds}"),
            *("-max_len=8192", "-timeout=20", "-rss_limit_mb=1500", "-print_final_stats=1"),
            "-close_fd_mask=3",
        ],
        cwd=folder,
        # Leaks are looked for through /proc, which a sandbox does not have.
        env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
    )
    outcome = Outcome(part, seconds=round(time.monotonic() - start, 1))
    (folder / "log").write_text(done.stderr)
    if done.returncode == _NO_SANDBOX:
        outcome.not_run = done.stderr.strip().splitlines()[-1]
        return outcome
    executed = re.search(r"stat::number_of_executed_units: +(\d+)", done.stderr)
    outcome.executions = int(executed[1]) if executed else 0
    covered = re.findall(r"cov: (\d+)", done.stderr)
    outcome.note = f"{covered[-1]} edges covered" if covered else ""
    found = _kept_by_the_fuzzer(folder) - before
    outcome.found = len(found) or int(done.returncode != 0)
    if outcome.found:
        outcome.note += f"; {', '.join(path.name for path in found)}, see {ROOT / part / 'log'}"
    return outcome


def _kept_by_the_fuzzer(folder: Path) -> set[Path]:
    return {path for kind in ("crash", "timeout", "oom") for path in folder.glob(f"{kind}-*")}


_WORDS = {
    "adbd": [
        *("shell:", "shell,v2,raw:", "shell,v2,pty,TERM=x:", "exec:", "sync:\\x00", "reboot:"),
        *("SEND", "DATA", "DONE", "RECV", "LIST", "LIS2", "STAT", "STA2", "LST2", "QUIT"),
        *("/f,33188", "/f,41471", "24x80,0x0"),
    ],
    "runner": [
        *("--backend", "--model", "--inputs", "--outputs", "--result", "--threads", "--cpu-mask"),
        *("--iterations", "--warmup-iterations", "--min-seconds", "--max-seconds", "--describe"),
        *("executorch", "onnxruntime", "\\xef\\xbf\\xbd", "\\xed\\xa0\\x80", "\\xf4\\x90"),
    ],
}


def _adbd_seeds() -> list[bytes]:
    def packet(choice: int, local: int, remote: int, payload: bytes) -> bytes:
        return bytes([choice, local, remote]) + struct.pack("<H", len(payload)) + payload

    def sync(word: bytes, content: bytes) -> bytes:
        return word + struct.pack("<I", len(content)) + content

    opened, write, okay, close = 0, 1, 3, 4
    sent = sync(b"SEND", b"/f,33188") + sync(b"DATA", b"x" * 100) + b"DONE" + bytes(4)
    asked = sync(b"STAT", b"/f") + sync(b"LIST", b"/") + sync(b"RECV", b"/f") + sync(b"QUIT", b"")
    frame = b"\0" + struct.pack("<I", 3) + b"ls\n" + b"\4" + bytes(4)
    end = packet(okay, 1, 1, b"") * 4 + packet(close, 1, 1, b"")
    sessions = [
        packet(opened, 1, 0, b"sync:\0") + packet(write, 1, 1, sent),
        packet(opened, 1, 0, b"sync:\0") + packet(write, 1, 1, asked),
        packet(opened, 1, 0, b"shell:ls\0"),
        packet(opened, 1, 0, b"shell,v2,raw:cat\0") + packet(write, 1, 1, frame),
        packet(opened, 1, 0, b"shell,v2,pty,TERM=x:cat\0") + packet(write, 1, 1, frame),
        packet(5, 1, 255, b"host::") + packet(6, 2, 0, b"x" * 256) + packet(7, 0, 0, b"raw" * 8),
    ]
    return [bytes([flags]) + one + end for one in sessions for flags in (0, 6, 8)]


def _runner_seeds() -> list[bytes]:
    words = "--backend executorch --model m --inputs i --outputs o --result r --cpu-mask 0xF0"
    more = "--threads 2 --iterations 5 --warmup-iterations 1 --min-seconds 0.5 --max-seconds 9"
    lines = f"{words} {more}".replace(" ", "\n").encode()
    texts = ["plain", "tab\tand\nline", 'quo"te\\', "ünï € 🎉", "\x1b[2J"]
    broken = [b"\xff\xfe", b"\xe2\x82", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"]
    return [b"\1" + lines, *(b"\0" + text.encode() for text in texts), *(b"\0" + b for b in broken)]


def models(seconds: int, seed: int) -> Outcome:
    """Damaged models and inputs for the real runner: it must say why, in time and within memory."""
    from benchmarks.agent import tiny
    from deploy.bench.runner import BACKENDS

    outcome = Outcome("models", note=f"seed {seed}")
    keep = ROOT / "models"
    keep.mkdir(parents=True, exist_ok=True)
    chance = random.Random(seed)
    codes: Counter[int] = Counter()
    with tempfile.TemporaryDirectory(prefix="pocketship-fuzz-") as name:
        folder = Path(name)
        say("exporting a small network")
        exported = tiny.export(folder)
        bundle = harness.bundle(harness.native_abi(), say)
        start = time.monotonic()
        while time.monotonic() - start < seconds:
            fmt, source = chance.choice(sorted(exported.files.items()))
            damaged = folder / f"damaged{source.suffix}"
            damaged.write_bytes(_damaged(source.read_bytes(), chance))
            outcome.executions += 1
            code, said = _run_model(bundle, BACKENDS[fmt], damaged, exported.inputs, folder)
            codes[code] += 1
            if code not in _CONTAINED:
                outcome.found += 1
                kept = keep / f"found-{seed}-{outcome.executions}{source.suffix}"
                shutil.copy(damaged, kept)
                outcome.note += f"; {kept.name}: {said}"
        outcome.seconds = round(time.monotonic() - start, 1)
    counted = ", ".join(f"{number} x code {code}" for code, number in sorted(codes.items()))
    outcome.note = f"{counted}; {outcome.note}"
    return outcome


def _damaged(content: bytes, chance: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8, 64))):
        # Structure lies at both ends; weights, in which damage means little, between them.
        near = chance.choice((256, 2048, len(data)))
        at = chance.randrange(min(near, len(data)))
        at = at if chance.random() < 0.5 else len(data) - 1 - at
        kind = chance.randrange(4)
        if kind == 0:
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            data[at : at + 4] = chance.choice((b"\xff" * 4, bytes(4), b"\xff\xff\xff\x7f"))
        elif kind == 2:
            data[at : at + chance.randrange(1, 64)] = chance.randbytes(chance.randrange(64))
        else:
            data[at] = chance.randrange(256)
    if chance.random() < 0.1:
        del data[chance.randrange(len(data)) :]
    return bytes(data)


def _run_model(
    bundle: harness.Bundle, backend: str, model: Path, inputs: Path, folder: Path
) -> tuple[int, str]:
    """Exit code and last words; a signal is a negative code, a time-out is -1000."""
    command = [
        *bundle.launch,
        *("--backend", backend, "--model", str(model), "--inputs", str(inputs)),
        *("--outputs", str(folder / "outputs"), "--result", str(folder / "result.json")),
        *("--iterations", "1", "--warmup-iterations", "0", "--max-seconds", "5"),
    ]
    try:
        done = subprocess.run(
            command,
            cwd=bundle.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_MODEL_TIMEOUT_S,
            check=False,
            preexec_fn=_limit,
        )
    except subprocess.TimeoutExpired:
        return -1000, f"still running after {_MODEL_TIMEOUT_S:g} s"
    return done.returncode, (done.stderr.strip().splitlines() or ["no words"])[-1][:120]


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MODEL_MEMORY, _MODEL_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def run(chosen: list[str], seconds: int, seed: int) -> list[Outcome]:
    """Every chosen part, one after the other."""
    outcomes = []
    if wanted := [part for part in _GUIDED if part in chosen]:
        compiler = shutil.which("clang++")
        try:
            if compiler is None:
                raise PocketshipError(
                    "clang++ is not installed (Debian, Ubuntu: apt install clang)"
                )
            ROOT.mkdir(parents=True, exist_ok=True)
            cmake_build(
                harness_dir() / "fuzz",
                ROOT / "programs",
                {"CMAKE_CXX_COMPILER": compiler},
                what="building the fuzzers",
                log=ROOT / "build.log",
                progress=say,
            )
        except PocketshipError as error:
            outcomes += [Outcome(part, not_run=str(error)) for part in wanted]
        else:
            for part in wanted:
                say(f"{part}: {seconds} s")
                program = (ROOT / "programs" / f"fuzz_{part}").resolve()
                outcomes.append(guided(part, program, seconds))
    if "models" in chosen:
        say(f"models: {seconds} s")
        try:
            outcomes.append(models(seconds, seed))
        except PocketshipError as error:
            outcomes.append(Outcome("models", not_run=str(error)))
    return outcomes


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description="Fuzzing for a bounded time.")
    parser.add_argument("--seconds", type=int, default=60, help="for each part")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--seed", type=int, default=None, help="of the damaged models")
    arguments = parser.parse_args()
    chosen = arguments.parts.split(",")
    if arguments.seconds < 1 or set(chosen) - set(PARTS):
        parser.error(f"--seconds must be at least 1, --parts some of {', '.join(PARTS)}")
    seed = arguments.seed if arguments.seed is not None else int.from_bytes(os.urandom(4), "big")
    try:
        outcomes = run(chosen, arguments.seconds, seed)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    for one in outcomes:
        figures = f"{one.seconds:.0f} s, {one.executions} executions, {one.found} found"
        print(f"{one.part}: {f'not run: {one.not_run}' if one.not_run else figures}  {one.note}")
    write_text(ROOT / "result.json", json.dumps([asdict(one) for one in outcomes], indent=2) + "\n")
    if any(one.found for one in outcomes):
        return 1
    return 6 if any(one.not_run for one in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
