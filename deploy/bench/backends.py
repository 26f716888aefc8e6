"""Which runner a device has: the formats that it takes, and the agent that drives it there.

This is a property of the device, by its transport. The iOS simulator has the Swift runner, which
knows Core ML alone; every other device has the native runner.
"""

from __future__ import annotations

from collections.abc import Mapping

from deploy.bench.agent import Agent, CaseAgent, RunnerBundle
from deploy.bench.job import Job
from deploy.bench.runner import BACKENDS
from deploy.bench.simulator import SimulatorAgent
from deploy.devices.base import Device
from deploy.devices.simctl import Simulator
from deploy.types import DeviceProfile, Format, Progress, silent

_SIMULATOR: dict[Format, str] = {Format.COREML: "coreml"}

_NO_BACKEND = {
    Format.COREML: "Core ML runs on Apple's systems only, neither on Android nor on Linux",
    Format.PACKED: "no runtime loads a packed program; what it holds is measured in other formats",
}


def backends(profile: DeviceProfile) -> Mapping[Format, str]:
    """Formats that the device's runner takes, and with which backend."""
    return _SIMULATOR if profile.transport == "simctl" else BACKENDS


def refusal(profile: DeviceProfile, job: Job) -> str:
    """Why a job never runs on such a device; empty where it does."""
    fmt = job.artifact.format
    if fmt in backends(profile):
        if profile.transport == "simctl" and job.threads != 1:
            return "Core ML chooses its own threads: it is measured once, as the case of 1 thread"
        return ""
    if profile.transport == "simctl" and fmt in BACKENDS:
        return f"the runner for the iOS simulator takes Core ML packages only, not {fmt.value}"
    return _NO_BACKEND.get(fmt, f"the native runner has no backend for {fmt.value}")


def agent_for(device: Device, bundle: RunnerBundle, progress: Progress = silent) -> CaseAgent:
    """The agent that runs cases on this device."""
    if isinstance(device, Simulator):
        return SimulatorAgent(device, bundle, progress)
    return Agent(device, bundle, progress)
