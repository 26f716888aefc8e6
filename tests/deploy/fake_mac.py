"""A Mac for tests: ``stand_in_xcrun.py`` on PATH, what it has, and what it was asked."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

IPHONE = "com.apple.CoreSimulator.SimDeviceType.iPhone-15"
IOS_18 = "com.apple.CoreSimulator.SimRuntime.iOS-18-0"
IOS_17 = "com.apple.CoreSimulator.SimRuntime.iOS-17-5"
WATCH = "com.apple.CoreSimulator.SimRuntime.watchOS-10-5"


def runtime(identifier: str, version: str, build: str, *types: str) -> dict[str, Any]:
    """A runtime as Xcode 15 lists it."""
    platform = identifier.rpartition(".")[2].partition("-")[0]
    return {
        "bundlePath": f"/Library/Developer/CoreSimulator/Volumes/{build}/{version}.simruntime",
        "buildversion": build,
        "platform": platform,
        "runtimeRoot": f"/Library/Developer/CoreSimulator/Volumes/{build}/RuntimeRoot",
        "identifier": identifier,
        "version": version,
        "isInternal": False,
        "isAvailable": True,
        "name": f"{platform} {version}",
        "supportedDeviceTypes": [
            {
                "bundlePath": "/x.simdevicetype",
                "name": "iPhone 15",
                "identifier": one,
                "productFamily": "iPhone",
            }
            for one in types
        ],
    }


def device(udid: str, name: str, state: str = "Shutdown", **more: Any) -> dict[str, Any]:
    """A device as Xcode 15 lists it."""
    return {
        "dataPath": f"/Users/me/Library/Developer/CoreSimulator/Devices/{udid}/data",
        "dataPathSize": 13312000,
        "logPath": f"/Users/me/Library/Logs/CoreSimulator/{udid}",
        "udid": udid,
        "isAvailable": True,
        "deviceTypeIdentifier": IPHONE,
        "state": state,
        "name": name,
        **more,
    }


def usual() -> dict[str, Any]:
    """What ``simctl list -j`` prints where two iOS and a watchOS are installed."""
    return {
        "devicetypes": [
            {
                "productFamily": "iPhone",
                "bundlePath": "/x.simdevicetype",
                "maxRuntimeVersion": 4294967295,
                "maxRuntimeVersionString": "65535.255.255",
                "identifier": IPHONE,
                "modelIdentifier": "iPhone15,4",
                "minRuntimeVersionString": "17.0.0",
                "minRuntimeVersion": 1114112,
                "name": "iPhone 15",
            }
        ],
        "runtimes": [
            runtime(WATCH, "10.5", "21T575"),
            runtime(IOS_18, "18.0", "22A3351", IPHONE),
            runtime(IOS_17, "17.5", "21F79", IPHONE),
        ],
        "devices": {WATCH: [], IOS_17: [], IOS_18: []},
        "pairs": {},
    }


@dataclass
class FakeXcrun:
    """The stand-in's folder: what it has, what it was asked, how it misbehaves."""

    folder: Path
    faults: dict[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads((self.folder / "state.json").read_text())
        return data

    def set(self, state: Any) -> None:
        (self.folder / "state.json").write_text(json.dumps(state))

    def fault(self, **faults: Any) -> None:
        self.faults.update(faults)
        (self.folder / "faults.json").write_text(json.dumps(self.faults))

    @property
    def devices(self) -> list[dict[str, Any]]:
        return [one for rows in self.state["devices"].values() for one in rows]

    def add(self, runtime_id: str, row: dict[str, Any]) -> None:
        state = self.state
        state["devices"].setdefault(runtime_id, []).append(row)
        self.set(state)

    @property
    def calls(self) -> list[list[str]]:
        log = self.folder / "calls.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def verbs(self) -> list[str]:
        """The second words: ``list``, ``create``, ``spawn`` and so on."""
        return [call[1] if call[0] == "simctl" else call[0] for call in self.calls]


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> FakeXcrun:
    """Put a stand-in on PATH, before everything else."""
    folder.mkdir(parents=True)
    program = folder / "xcrun"
    code = Path(__file__).with_name("stand_in_xcrun.py").read_text(encoding="utf-8")
    program.write_text(f"#!{sys.executable} -IS\n{code}")
    program.chmod(0o755)
    fake = FakeXcrun(folder)
    fake.set(usual())
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return fake
