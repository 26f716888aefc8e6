"""What is asked of a device, by name: commands that only read, and many of them in one round trip.

The names are those of the files in a recording (docs/replay.md) and of the test fixtures.
"""

from __future__ import annotations

FREQUENCIES = (
    "for f in /sys/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq; do "
    'read -r khz <"$f" && echo "$f $khz"; done'
)

QUESTIONS: dict[str, tuple[str, ...]] = {
    "getprop": ("getprop",),
    "kernel": ("uname", "-r"),
    "cpuinfo": ("cat", "/proc/cpuinfo"),
    "meminfo": ("cat", "/proc/meminfo"),
    "cpu_max_frequencies": ("sh", "-c", FREQUENCIES),
}
"""What a device is: asked once."""

# Shell builtins where they can do it: a phone starts a process in some milliseconds, and there are
# up to a hundred sensors. The thermal zones are asked only where the thermal service knows nothing.
_ZONES = (
    "case $thermal in *Temperature{mValue*) ;; *)"
    " for z in /sys/class/thermal/thermal_zone*; do"
    ' { read -r kind <"$z/type" && read -r value <"$z/temp"; } 2>/dev/null'
    ' && echo "${z##*/} $kind $value"; done;; esac'
)
_TIMES = (
    "for f in /sys/devices/system/cpu/cpufreq/policy*/stats/time_in_state; do"
    ' [ -e "$f" ] || continue; echo "$f";'
    ' while read -r line; do echo "$line"; done <"$f"; done'
)
_GOVERNORS = (
    "for f in /sys/devices/system/cpu/cpufreq/policy*/scaling_governor; do"
    ' [ -e "$f" ] || continue; read -r name <"$f" && echo "$f $name"; done; true'
)
_SUPPLIES = (
    "for s in /sys/class/power_supply/*; do"
    " for n in type current_now voltage_now charge_counter; do"
    ' [ -e "$s/$n" ] && echo "$s/$n=$(cat "$s/$n" 2>&1)"; done; done; true'
)

STATE_SECTIONS: dict[str, str] = {
    "uptime": 'read -r line </proc/uptime && echo "$line"',
    "boot_id": 'read -r line </proc/sys/kernel/random/boot_id && echo "$line"',
    "dumpsys_battery": "dumpsys battery",
    "dumpsys_thermalservice": 'thermal=$(dumpsys thermalservice); echo "$thermal"',
    "thermal_zones": _ZONES,
    "time_in_state": _TIMES,
    "governors": _GOVERNORS,
}
"""What surrounds a case: asked before and after each, in one round trip (:func:`state_argv`)."""

SUPPLIES = ("sh", "-c", _SUPPLIES)
"""Gauges of the battery; asked where energy is measured, since some drivers are slow."""


def state_argv(token: str) -> list[str]:
    """The command that answers all :data:`STATE_SECTIONS`, each below a line ``@@TOKEN NAME``."""
    parts = [
        f'echo; echo "@@$1 {name}"; {{ {script}; }} 2>&1' for name, script in STATE_SECTIONS.items()
    ]
    return ["sh", "-c", "; ".join([*parts, "true"]), "sh", token]
