"""Devices: what a profile declares, what the device answered, what surrounded a case."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from deploy.types.base import Metric, Model, Tier


class Core(Model):
    """A cluster of equal CPU cores. ``max_mhz`` None: unknown."""

    name: str
    count: int = Field(gt=0)
    max_mhz: int | None = None
    big: bool = False


class EnergySource(Model):
    """How energy can be had on a device; ``source: none`` needs a reason.

    ``current_sign`` is the sign of ``current_now`` while the battery discharges,
    ``current_scale_ua`` how many µA one unit of it is; ``rails`` are the names of the power rails
    to add up, all where none is named.
    """

    source: Literal["power_rails", "current_voltage", "charge_counter", "none"]
    current_sign: Literal[1, -1] | None = None
    current_scale_ua: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    rails: tuple[str, ...] = ()
    reason: str = ""

    @model_validator(mode="after")
    def _reason_where_none(self) -> EnergySource:
        if self.source == "none" and not self.reason:
            raise ValueError("energy source 'none' needs a reason")
        return self


class EmulatorSpec(Model):
    """How the emulated phone of a profile is built and started."""

    cpu: str = "cortex-a76"
    memory_mib: int = Field(gt=0)
    disk_mib: int = Field(gt=0)
    properties: dict[str, str] = Field(default_factory=dict)
    battery: dict[str, str] = Field(default_factory=dict)


class SimulatorSpec(Model):
    """Which iOS simulator is created for a profile: with the newest runtime that is installed.

    ``device_type`` is an identifier of ``xcrun simctl list devicetypes``.
    """

    device_type: str = "com.apple.CoreSimulator.SimDeviceType.iPhone-15"
    minimum_ios: str = Field(default="17.0", pattern=r"^[0-9]{1,3}(\.[0-9]{1,3}){0,2}$")


class BenchOverride(Model):
    """Iterations that replace the preset's where counts are exact or time is dear."""

    warmup_iterations: int = Field(ge=0)
    iterations: int = Field(gt=0)


class DeviceProfile(Model):
    """What we declare about a device before talking to it (one YAML file each).

    ``match`` maps Android property names to regular expressions that must match whole values; all
    must match. ``timeouts`` are wall seconds on this machine. ``budgets`` are upper limits by
    metric: of each case on the device, and of files (``bytes``, ``partitions``, ``macs``,
    ``planned_bytes``) that run there.
    """

    name: str
    description: str
    transport: Literal["adb", "emulator", "host", "replay", "simctl"]
    tier: Tier
    match: dict[str, str] = Field(default_factory=dict)
    abi: str
    soc: str | None = None
    cores: tuple[Core, ...] = ()
    work_dir: str
    energy: EnergySource
    emulator: EmulatorSpec | None = None
    simulator: SimulatorSpec | None = None
    bench: BenchOverride | None = None
    shell_timeout_s: float = 30.0
    case_timeout_s: float = 600.0
    budgets: dict[
        Literal["bytes", "partitions", "macs", "planned_bytes"] | Metric,
        Annotated[float, Field(ge=0, allow_inf_nan=False)],
    ] = Field(default_factory=dict)
    tested_on: str = ""


class DeviceInfo(Model):
    """What a device answered. A None has its reason in ``unknown[field]``."""

    serial: str
    profile: str
    tier: Tier
    model: str | None = None
    manufacturer: str | None = None
    abi: str | None = None
    soc: str | None = None
    os_build: str | None = None
    kernel: str | None = None
    cpu_count: int | None = None
    big_core_mask: str | None = None
    memory_total_kib: int | None = None
    clock: Literal["monotonic", "icount"] = "monotonic"
    properties: dict[str, str] = Field(default_factory=dict)
    unknown: dict[str, str] = Field(default_factory=dict)


class DeviceState(Model):
    """What surrounds a case at one moment. A None has its reason in ``unknown[field]``.

    ``thermal_status`` is Android's, 0 (none) to 6 (shutdown); ``temperatures_c`` maps a sensor's
    name to degrees Celsius; ``time_in_state_ms`` maps a cpufreq policy to {kHz: milliseconds since
    boot} and ``governors`` to the name of its governor; ``uptime_s`` and ``boot_id`` tell a restart
    from a pause.
    """

    uptime_s: float | None = None
    boot_id: str | None = None
    battery_percent: float | None = None
    battery_c: float | None = None
    charging: bool | None = None
    thermal_status: int | None = None
    temperatures_c: dict[str, float] = Field(default_factory=dict)
    time_in_state_ms: dict[str, dict[int, int]] = Field(default_factory=dict)
    governors: dict[str, str] = Field(default_factory=dict)
    unknown: dict[str, str] = Field(default_factory=dict)
