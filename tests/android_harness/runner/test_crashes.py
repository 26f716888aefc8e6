"""A runtime that crashes or prints is contained: judged with a backend that does just that."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.paths import harness_dir

MISBEHAVING = r"""
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include "backend.h"

namespace {
bool asked(const char* what) { return std::strcmp(std::getenv("MISBEHAVE"), what) == 0; }

int deeper(volatile int depth) { return depth == -1 ? 0 : deeper(depth + 1) + depth; }

void misbehave(const char* phase) {
  std::printf("chatter on stdout\n");
  std::fprintf(stderr, "chatter\non stderr\n");
  std::fflush(stdout);
  const std::string prefix = phase;
  if (asked((prefix + ":abort").c_str())) std::abort();
  if (asked((prefix + ":segv").c_str())) std::raise(SIGSEGV);
  if (asked((prefix + ":overflow").c_str())) std::exit(deeper(0));
  if (asked((prefix + ":throw").c_str())) throw std::runtime_error("thrown\nby the runtime");
}

class Misbehaving : public pocketship::Backend {
 public:
  std::string runtime_version() const override { return "0"; }
  void load(const std::string&) override { misbehave("load"); }
  const std::vector<pocketship::TensorSpec>& inputs() const override { return specs_; }
  const std::vector<pocketship::TensorSpec>& outputs() const override { return specs_; }
  void bind_inputs(const std::vector<void*>&) override {}
  void before_inference() override { misbehave("infer"); }
  bool execute() noexcept override { return true; }
  std::string failure_reason() const override { return ""; }
  pocketship::OutputView output(std::size_t) override { return {}; }

 private:
  std::vector<pocketship::TensorSpec> specs_;
};
}  // namespace

extern "C" pocketship::Backend* ps_create_backend(int, const char*) {
  misbehave("open");
  return new Misbehaving();
}
"""


@pytest.fixture(scope="module")
def misbehaving(tmp_path_factory: pytest.TempPathFactory, bundle: Any) -> Path:
    folder = tmp_path_factory.mktemp("misbehaving")
    (folder / "backend.cpp").write_text(MISBEHAVING)
    made = folder / "bundle"
    shutil.copytree(bundle.folder, made)
    subprocess.run(
        [
            *("g++", "-std=c++17", "-O0", "-shared", "-fPIC"),
            *("-I", harness_dir() / "runner" / "src"),
            *("-o", made / "libps_executorch.so", folder / "backend.cpp"),
        ],
        check=True,
    )
    return made


@pytest.mark.parametrize(("phase", "code"), [("open", 5), ("load", 3), ("infer", 6)], ids=str)
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("abort", "crashed with SIGABRT"),
        ("segv", "crashed with SIGSEGV"),
        ("overflow", "crashed with SIGSEGV"),
        ("throw", "thrown by the runtime"),
    ],
)
def test_a_crash_is_one_line_and_the_code_of_its_phase(
    phase: str,
    code: int,
    how: str,
    words: str,
    runner: Any,
    misbehaving: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runner = replace(runner, bundle=runner.bundle.model_copy(update={"folder": misbehaving}))
    model = tmp_path / "model"
    model.write_bytes(b"anything")
    monkeypatch.setenv("MISBEHAVE", f"{phase}:{how}")
    got = runner.run("executorch", model, b"")
    assert (got.code, got.stdout) == (code, "")
    assert got.stderr.startswith("bench_runner: ")
    assert got.stderr.count("\n") == 1
    assert words in got.stderr
    assert ("libps_executorch.so" if phase == "open" else str(model)) in got.stderr
    assert "chatter" not in got.stderr
    assert runner.left_behind() == set()


def test_a_runtime_that_only_prints_disturbs_nothing(
    runner: Any, misbehaving: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = replace(runner, bundle=runner.bundle.model_copy(update={"folder": misbehaving}))
    model = tmp_path / "model"
    model.write_bytes(b"anything")
    monkeypatch.setenv("MISBEHAVE", "nothing")
    got = runner.run("executorch", model, b"")
    assert (got.code, got.stdout, got.stderr) == (0, "", "")
    assert len(got.result["steady_ns"]) == 50
