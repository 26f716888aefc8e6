"""Recorders of energy on a device: started before the idle window, stopped after the second one.

Each runs on the device by itself, so nothing is asked while the phone computes. Never yet run on a
real phone. Every recorder ends by itself, also when this machine is gone: a sampler when its folder
is or after its last reading, perfetto after the duration in its configuration.
"""

from __future__ import annotations

import re
import secrets
import tempfile
from pathlib import Path
from typing import Protocol

from deploy.android_text import (
    PowerSupply,
    battery_of,
    parse_dumpsys_battery,
    parse_gauge_samples,
    parse_power_rails,
    parse_power_supplies,
    printable,
)
from deploy.android_text.power_rails import MAX_TRACE_BYTES, RailTrace
from deploy.devices.base import Device, ShellResult
from deploy.devices.questions import SUPPLIES
from deploy.metrics.energy import (
    Curve,
    NoEnergy,
    charge_counter_curve,
    chosen_rails,
    current_voltage_curve,
    declared,
    rails_curve,
    rails_in_words,
)

SPARE_S = 120
"""What a recorder runs beyond the planned time, at most."""

_POLL_MS = 250
_TRACES = "/data/misc/perfetto-traces"

# $1 folder, $2 and $3 the nodes, $4 readings at most. It ends with its folder.
_SAMPLE = (
    'mkdir -p -- "$1" || exit 1; '
    '( trap "" HUP; i=0; while [ $i -lt "$4" ] && [ -d "$1" ]; do a=-; b=-; '
    'read -r up rest </proc/uptime; read -r a <"$2"; read -r b <"$3"; '
    'echo "$up ${a:--} ${b:--}"; i=$((i + 1)); sleep 1; done >"$1/samples" ) '
    "</dev/null >/dev/null 2>&1 &"
)
# $1 the trace, $2 the configuration. Prints perfetto's process id.
_TRACE = 'printf "%s" "$2" | perfetto --txt -c - -o "$1" --background'
# The same to its end.
_GLANCE = 'printf "%s" "$2" | perfetto --txt -c - -o "$1"'
_GLANCE_MS = 1000
# $1 process id, $2 the trace. The number may belong to someone else by now.
_END_TRACE = (
    'grep -qF -- "$2" "/proc/$1/cmdline" 2>/dev/null && kill -TERM "$1"; n=0; '
    'while [ -d "/proc/$1" ] && [ $n -lt 20 ]; do n=$((n + 1)); sleep 1; done; true'
)


class Recorder(Protocol):
    """One way to get an energy curve. Calls raise :class:`NoEnergy` and ``DeviceError``."""

    def check(self) -> None:
        """Refuse with the true reason where there will be no curve."""

    def start(self, seconds: float) -> None:
        """Begin to record for about ``seconds``."""

    def stop(self) -> Curve:
        """The curve so far; to be called once."""

    def clean_up(self) -> None:
        """Leave nothing behind on the device, whatever happened before."""

    @property
    def how(self) -> str:
        """What was read, for the measurement's source."""


class BatteryGauge:
    """``current_now`` or ``charge_counter`` with ``voltage_now`` once a second; unplugged only."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._energy = device.profile.energy
        self._node = "current_now" if self._energy.source == "current_voltage" else "charge_counter"
        self._folder = f"{device.profile.work_dir}/cases/energy-{secrets.token_hex(8)}"
        self._supply = ""

    @property
    def how(self) -> str:
        """The nodes that were read."""
        return f"{self._node} and voltage_now of power supply {self._supply}, once a second"

    def check(self) -> None:
        """A declared scale, a battery that is not charged, and two nodes that can be read."""
        declared(self._energy)
        self._unplugged()
        battery = battery_of(parse_power_supplies(self._device.shell(SUPPLIES).stdout))
        if battery is None:
            raise NoEnergy("/sys/class/power_supply shows no battery")
        for node in (self._node, "voltage_now"):
            _readable(battery, node)
        self._supply = battery.name

    def start(self, seconds: float) -> None:
        """Start the sampler in the background."""
        base = f"/sys/class/power_supply/{self._supply}"
        readings = str(int(seconds) + SPARE_S)
        words = [self._folder, f"{base}/{self._node}", f"{base}/voltage_now", readings]
        done = self._device.shell(["sh", "-c", _SAMPLE, "sh", *words])
        if done.exit_code != 0:
            said = printable(done.stderr or done.stdout, 120)
            raise NoEnergy(f"the sampler did not start: {said or f'exit code {done.exit_code}'}")

    def stop(self) -> Curve:
        """Read the samples; the phone has to be unplugged still."""
        self._unplugged()
        text = self._device.shell(["cat", f"{self._folder}/samples"]).stdout
        samples = parse_gauge_samples(text)
        if self._node == "current_now":
            return current_voltage_curve(samples, self._energy)
        return charge_counter_curve(samples)

    def clean_up(self) -> None:
        """Remove the folder, which also ends the sampler."""
        self._device.shell(["rm", "-rf", "--", self._folder])

    def _unplugged(self) -> None:
        powered = parse_dumpsys_battery(self._device.shell(["dumpsys", "battery"]).stdout).powered
        if powered is None:
            raise NoEnergy("whether the phone is plugged in is not known")
        if powered:
            raise NoEnergy(
                f"the phone is plugged in ({', '.join(powered)}), and its battery gauge then shows "
                "the charger; unplug it and connect over the network"
            )


class PowerRails:
    """ODPM power rails through perfetto's ``android.power``; works while charging too."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._wanted = device.profile.energy.rails
        self._summed = "power rails"
        self._trace = f"{_TRACES}/pocketship-{secrets.token_hex(8)}"
        self._pid = ""

    @property
    def how(self) -> str:
        """Which rails were added up."""
        return f"{self._summed} through perfetto (android.power, collect_power_rails)"

    def check(self) -> None:
        """perfetto has to be there, and so have the rails that the profile names.

        A second's trace tells their names, before minutes are spent on a sum that cannot be had.
        Where it tells of no rail at all, the long one has to say why.
        """
        if self._device.shell(["sh", "-c", "command -v perfetto"]).exit_code != 0:
            raise NoEnergy("the device has no perfetto")
        if self._wanted:
            try:
                self._perfetto(_GLANCE, _GLANCE_MS)
                found = self._fetched()
            finally:
                self._remove()
            if found.rails:
                chosen_rails(found.rails, self._wanted)

    def start(self, seconds: float) -> None:
        """Start perfetto in the background."""
        done = self._perfetto(_TRACE, int(1000 * (seconds + SPARE_S)))
        pid = re.search(r"^([1-9][0-9]{0,8})\s*$", done.stdout, re.M)
        if pid is None:
            raise _not_started(done)
        self._pid = pid.group(1)

    def stop(self) -> Curve:
        """End the trace, fetch it, add its rails up."""
        self._end()
        found = self._fetched()
        if found.problem and not found.rails:
            raise NoEnergy(found.problem)
        self._summed = rails_in_words(found.rails, self._wanted)
        return rails_curve(found.rails, self._wanted)

    def clean_up(self) -> None:
        """End perfetto if it runs and remove the trace."""
        self._end()
        self._remove()

    def _perfetto(self, script: str, duration_ms: int) -> ShellResult:
        config = (
            "buffers { size_kb: 16384 fill_policy: DISCARD }\n"
            'data_sources { config { name: "android.power" android_power_config { '
            f"battery_poll_ms: {_POLL_MS} collect_power_rails: true }} }} }}\n"
            f"duration_ms: {duration_ms}\n"
        )
        done = self._device.shell(["sh", "-c", script, "sh", self._trace, config])
        if done.exit_code != 0:
            raise _not_started(done)
        return done

    def _fetched(self) -> RailTrace:
        with tempfile.TemporaryDirectory(prefix="pocketship-") as folder:
            local = Path(folder) / "trace"
            self._device.pull(self._trace, local, max_bytes=MAX_TRACE_BYTES)
            return parse_power_rails(local.read_bytes())

    def _remove(self) -> None:
        self._device.shell(["rm", "-f", "--", self._trace])

    def _end(self) -> None:
        if self._pid:
            self._device.shell(["sh", "-c", _END_TRACE, "sh", self._pid, self._trace])
            self._pid = ""


def recorder_of(device: Device) -> Recorder:
    """The recorder for the profile's energy source (which is not ``none``)."""
    if device.profile.energy.source == "power_rails":
        return PowerRails(device)
    return BatteryGauge(device)


def _not_started(done: ShellResult) -> NoEnergy:
    said = printable(done.stderr or done.stdout, 160) or "no word"
    return NoEnergy(f"perfetto did not start: {said}")


def _readable(battery: PowerSupply, node: str) -> None:
    if node not in battery.values:
        why = battery.refused.get(node, "there is no such node")
        raise NoEnergy(f"power_supply/{battery.name}/{node}: {why}")
