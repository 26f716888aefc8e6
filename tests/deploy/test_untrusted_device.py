"""A device that lies about everything: nothing it says becomes a path, a command or a control code.

The daemon and the shell are real; the programs that the agent asks are a liar's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import harness
from deploy.bench.job import Job
from deploy.bench.runner import PRESETS
from deploy.bench.session import run_device
from deploy.devices.host import HostDevice
from deploy.devices.recording import RecordingDevice
from deploy.files import sha256
from deploy.types import Artifact, DeviceRun, Format, Placement, Status, TensorSpec
from tests.deploy.native_adbd import NativeAdbd, running

ROOT = Path(__file__).parents[2]

LIES = (
    "../../../../pwned",
    "/pwned-by-absolute-path",
    "$(touch pwned)`touch pwned`;touch pwned",
    "--help",
    "\\033[2J\\033]0;pwned\\007",
    "x" * 3000,
)
"""As printf(1) takes them."""

PROPERTIES = (
    "ro.product.model",
    "ro.product.manufacturer",
    "ro.product.device",
    "ro.build.fingerprint",
    "ro.serialno",
    "ro.soc.model",
    "ro.soc.manufacturer",
    "ro.hardware",
    "ro.board.platform",
    "ro.build.version.release",
)

ASKED = ("ls", "sha256sum", "stat", "df", "dumpsys", "uname", "nproc")


class Bundle:
    """A stand-in for the runner's bundle: it answers at once, with a result as bad as the rest."""

    launch = ("./bench_runner",)

    def __init__(self, folder: Path, result: str) -> None:
        self.abi = HostDevice().profile.abi
        self.folder = folder
        folder.mkdir()
        (folder / "bench_runner").write_text(
            "#!/bin/sh\nwhile [ $# -gt 1 ]; do case $1 in\n"
            f"--result) printf '%s' '{result}' >\"$2\";; --outputs) printf 1234 >\"$2\";;\n"
            "esac; shift 2; done\n"
        )
        self.files = {"bench_runner": sha256(folder / "bench_runner")}


def job(folder: Path) -> Job:
    model, inputs = folder / "model.pte", folder / "inputs"
    model.write_bytes(b"model")
    inputs.write_bytes(b"1234")
    specs = (TensorSpec(name="x", dtype="float32", shape=(1,)),)
    artifact = Artifact(
        name="tiny.executorch",
        variant="tiny",
        format=Format.EXECUTORCH,
        path=model.name,
        sha256=sha256(model),
        bytes=5,
        source_sha256="0" * 64,
        tools={},
        placement=Placement(backend="cpu"),
        inputs=specs,
        outputs=specs,
    )
    return Job(artifact, model, inputs, None, 1)


@pytest.fixture(params=[*range(len(LIES)), "only the runner's result"])
def liar(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NativeAdbd]:
    everything = isinstance(request.param, int)
    lie = LIES[request.param if everything else 0]
    with running(harness.adbd(HostDevice().profile.abi), tmp_path / "adbd") as daemon:
        lines = "".join(f"printf '[{name}]: [{lie}]\\n'\n" for name in PROPERTIES)
        abi = HostDevice().profile.abi
        (daemon.commands / "getprop").write_text(
            f"#!/bin/sh\nprintf '[ro.product.cpu.abi]: [{abi}]\\n'\n{lines}"
        )
        for name in ASKED if everything else ():
            program = daemon.commands / name
            program.write_text(f"#!/bin/sh\nprintf '{lie}  {lie}\\n{lie}\\n'\n")
            program.chmod(0o755)
        yield daemon


def everything_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def control_codes(text: str) -> list[str]:
    return re.findall(r"[\x00-\x08\x0b-\x1f\x7f\x9b]", text)


def test_nothing_that_a_liar_says_gets_anywhere(
    liar: NativeAdbd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, device_side = tmp_path / "here", tmp_path / "device's own"
    here.mkdir()
    device_side.mkdir()
    monkeypatch.chdir(here)
    bundle = Bundle(tmp_path / "bundle", '{"schema": 1, "backend": "../../pwned"}')
    asked = job(tmp_path)
    before = everything_below(tmp_path)
    told: list[str] = []
    device = liar.connect(device_side)
    try:
        recorder = RecordingDevice(device, tmp_path / "recording")
        recorder.ask_questions()
        run, cases = run_device(recorder, [asked], bundle, PRESETS["exact"], progress=told.append)
        recorder.finish()
    finally:
        device.close()

    assert cases[0].status is not Status.OK
    assert cases[0].reason
    new = everything_below(tmp_path) - before
    # The recording has the names that we chose, with the liar's words inside.
    names = {Path(name).name for name in new if name.startswith("recording")}
    assert all(re.fullmatch(r"[a-z0-9_]{1,64}([.][a-z]+)?", name) for name in names), names
    elsewhere = {n for n in new if not n.startswith(("recording", "device's own"))}
    assert elsewhere == set()
    assert not [name for name in new if "pwned" in name]
    assert not Path("/pwned-by-absolute-path").exists()
    shown = "\n".join([*told, run.reason, *(case.reason for case in cases)])
    assert not control_codes(shown)
    assert all(len(line) < 1000 for line in shown.splitlines())
    assert_plain(run)


def assert_plain(run: DeviceRun) -> None:
    """What goes into reports holds no control codes and no endless text."""
    if run.info is None:
        return
    for value in run.info.model_dump(mode="json").values():
        texts = value.values() if isinstance(value, dict) else [value]
        for text in texts:
            if isinstance(text, str):
                assert not control_codes(text), text
                assert len(text) <= 1000


def sources() -> list[Path]:
    return [path for folder in ("deploy", "compress") for path in (ROOT / folder).rglob("*.py")]


def test_nothing_listens_beyond_this_machine() -> None:
    """Sockets that we open for others are QEMU's forward and the daemon's, both on 127.0.0.1."""
    seen = 0
    for path in sources():
        text = path.read_text()
        for forward in re.findall(r"hostfwd=[^\"']*", text):
            assert forward.startswith("hostfwd=tcp:127.0.0.1:"), path
            seen += 1
        assert not re.search(r"\b0[.]0[.]0[.]0\b|INADDR_ANY|::\]:", text), path
        for bound in re.findall(r"[.]bind\((.*)\)", text):
            assert '"127.0.0.1"' in bound, f"{path}: bind({bound})"
    assert seen == 1


def test_no_shell_of_this_machine_gets_text() -> None:
    for path in sources():
        text = path.read_text()
        assert "shell=True" not in text, path
        assert not re.search(r"\bos[.](system|popen)\(", text), path


def test_nothing_from_outside_is_unpickled() -> None:
    """Recordings, results and reports are JSON and YAML, read by the safe loader."""
    for path in sources():
        text = path.read_text()
        assert not re.search(r"\b(pickle|marshal|shelve)[.]loads?\(", text), path
        assert not re.search(r"\byaml[.](load|full_load|unsafe_load)\(", text), path
