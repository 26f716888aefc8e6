"""Parsers of what phones print: text in, dataclass out, no I/O; one module a theme.

The text is untrusted. No parser raises on any text, and none makes a number up: what is not there,
cannot be read or is out of any sane range is None or left out. Formats differ between vendors; each
parser says which traps it knows.
"""

from deploy.android_text.battery import Battery, parse_dumpsys_battery
from deploy.android_text.clocks import parse_boot_id, parse_uptime_s
from deploy.android_text.cpu import (
    CpuInfo,
    big_core_mask,
    parse_cpu_max_frequencies,
    parse_cpuinfo,
    parse_governors,
    parse_time_in_state,
)
from deploy.android_text.memory import (
    MemInfo,
    ProcessMemory,
    SmapsRollup,
    parse_dumpsys_meminfo,
    parse_meminfo,
    parse_smaps_rollup,
)
from deploy.android_text.power_rails import Rail, RailTrace, parse_power_rails
from deploy.android_text.power_supply import (
    GaugeSample,
    PowerSupply,
    battery_of,
    parse_gauge_samples,
    parse_power_supplies,
)
from deploy.android_text.printing import printable
from deploy.android_text.properties import parse_getprop
from deploy.android_text.sections import join_sections, split_sections
from deploy.android_text.storage import parse_df_available_kib, parse_sha256sum
from deploy.android_text.thermal import (
    STATUSES,
    ThermalService,
    parse_thermal_zones,
    parse_thermalservice,
    thermal_status_word,
)

__all__ = [
    "STATUSES",
    "Battery",
    "CpuInfo",
    "GaugeSample",
    "MemInfo",
    "PowerSupply",
    "ProcessMemory",
    "Rail",
    "RailTrace",
    "SmapsRollup",
    "ThermalService",
    "battery_of",
    "big_core_mask",
    "join_sections",
    "parse_boot_id",
    "parse_cpu_max_frequencies",
    "parse_cpuinfo",
    "parse_df_available_kib",
    "parse_dumpsys_battery",
    "parse_dumpsys_meminfo",
    "parse_gauge_samples",
    "parse_getprop",
    "parse_governors",
    "parse_meminfo",
    "parse_power_rails",
    "parse_power_supplies",
    "parse_sha256sum",
    "parse_smaps_rollup",
    "parse_thermal_zones",
    "parse_thermalservice",
    "parse_time_in_state",
    "parse_uptime_s",
    "printable",
    "split_sections",
    "thermal_status_word",
]
