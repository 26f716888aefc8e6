"""How the runner is called and what its end means."""

from __future__ import annotations

import pytest

from deploy.bench.runner import (
    PRESETS,
    arguments,
    brief,
    interpret_exit,
    load_only,
    pinning,
    plan,
    preset,
)
from deploy.errors import ConfigError
from deploy.types import BenchOverride, Status


def test_presets_are_those_of_the_method() -> None:
    quick, release = PRESETS["quick"], PRESETS["release"]
    assert (quick.iterations, quick.min_seconds, quick.max_seconds) == (50, 1.0, 150.0)
    assert (release.iterations, release.min_seconds) == (1024, 60.0)
    sustained = preset("sustained", 30)
    assert (sustained.min_seconds, sustained.per_minute) == (1800.0, True)
    assert sustained.max_seconds > sustained.min_seconds
    assert preset("sustained").min_seconds == 600.0
    for each in (quick, release, sustained):
        assert (each.warmup_iterations, each.warmup_seconds) == (10, 0.5)


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'fast'.*quick, release, sustained, exact"):
        preset("fast")


def test_a_profile_can_replace_the_iterations() -> None:
    planned = plan(PRESETS["quick"], BenchOverride(warmup_iterations=1, iterations=3))
    assert (planned.warmup_iterations, planned.iterations) == (1, 3)
    assert (planned.warmup_seconds, planned.min_seconds) == (0.0, 0.0)
    assert plan(PRESETS["quick"], None) is PRESETS["quick"]
    counted = BenchOverride(warmup_iterations=1, iterations=3)
    assert not plan(PRESETS["sustained"], counted).per_minute


def test_no_pass_looks_at_more_than_timing_does() -> None:
    exact = brief(PRESETS["exact"], warmup=5, iterations=20, seconds=1.0)
    assert (exact.warmup_iterations, exact.iterations, exact.min_seconds) == (1, 3, 0.0)
    quick = brief(PRESETS["sustained"], warmup=5, iterations=20, seconds=0.5)
    assert (quick.warmup_iterations, quick.iterations, quick.min_seconds) == (5, 20, 0.5)
    assert (quick.warmup_seconds, quick.per_minute) == (0.0, False)
    alone = load_only(PRESETS["release"])
    assert (alone.warmup_iterations, alone.iterations, alone.min_seconds) == (0, 0, 0.0)


def test_what_a_pass_asks_for_is_an_option() -> None:
    common = {"model": "m", "inputs": "i", "outputs": "o", "result": "r", "threads": 1}
    plain = arguments("executorch", cpu_mask=None, limits=PRESETS["exact"], **common)
    asked = arguments(
        *("executorch",),
        **(common | {"cpu_mask": None, "limits": PRESETS["exact"]}),
        samples=7,
        poll_memory_ms=50,
        profile="/c/p",
    )
    assert asked[: len(plain)] == plain
    extra = ["--samples", "7", "--poll-memory-ms", "50", "--profile", "/c/p"]
    assert asked[len(plain) :] == extra


def test_arguments_are_the_contract() -> None:
    words = arguments(
        "executorch",
        model="/s/m",
        inputs="/s/i",
        outputs="/c/o",
        result="/c/r",
        threads=2,
        cpu_mask="0xc0",
        limits=PRESETS["exact"],
    )
    given = dict(zip(words[::2], words[1::2], strict=True))
    assert given == {
        "--backend": "executorch",
        "--model": "/s/m",
        "--inputs": "/s/i",
        "--outputs": "/c/o",
        "--result": "/c/r",
        "--warmup-iterations": "1",
        "--warmup-seconds": "0",
        "--iterations": "3",
        "--min-seconds": "0",
        "--max-seconds": "150",
        "--threads": "2",
        "--cpu-mask": "0xc0",
    }


@pytest.mark.parametrize(
    ("mask", "threads", "used"),
    [(None, 1, None), ("0x100", 1, "0x100"), ("0x100", 4, None), ("0xf0", 4, "0xf0")],
)
def test_threads_never_share_a_big_core(mask: str | None, threads: int, used: str | None) -> None:
    assert pinning(mask, threads) == used


LINE = "bench_runner: the model cannot be loaded: m.pte"


@pytest.mark.parametrize(
    ("code", "printed", "status", "says"),
    [
        (0, "", Status.OK, ""),
        (3, f"noise\n{LINE}\n", Status.FAILED, LINE),
        (4, LINE, Status.FAILED, LINE),
        (5, "", Status.FAILED, "library"),
        (6, "", Status.FAILED, "inference failed"),
        (2, "bench_runner: bad", Status.INVALID, "bench_runner: bad"),
        (7, "", Status.INVALID, "could not write"),
        (1, "strange", Status.INVALID, "strange"),
        (126, "Permission denied", Status.INVALID, "Permission denied"),
        (127, "", Status.INVALID, "not be started"),
        (134, "", Status.FAILED, "SIGABRT"),
        (137, "Killed", Status.FAILED, "memory runs out"),
        (139, "", Status.FAILED, "SIGSEGV"),
        (143, "", Status.INVALID, "SIGTERM"),
        (250, "", Status.INVALID, "signal 122"),
    ],
)
def test_what_an_exit_means(code: int, printed: str, status: Status, says: str) -> None:
    found, reason = interpret_exit(code, printed)
    assert found is status
    assert says in reason
    assert bool(reason) == (code != 0)


def test_a_hostile_line_stays_one_short_line() -> None:
    _, reason = interpret_exit(3, "bench_runner: \x1b[31m" + "x" * 10_000 + "\r\a")
    assert "\x1b" not in reason
    assert "\a" not in reason
    assert len(reason) <= 300
