"""Energy of an inference. Nothing is measured yet: every row says so, and why."""

from __future__ import annotations

from deploy.types import EnergySource, Measurement, Metric, Status, Tier


def energy_measurement(energy: EnergySource, *, tier: Tier) -> Measurement:
    """The ``energy_mj`` row: ``unavailable`` with the true reason, never zero."""
    if energy.source == "none":
        reason = energy.reason
    else:
        reason = (
            f"reading energy from {energy.source} is not implemented; nothing was measured"
            f"{': ' + energy.reason if energy.reason else ''}"
        )
    return Measurement(
        metric=Metric.ENERGY_MJ,
        unit="mJ",
        tier=tier,
        source=energy.source,
        status=Status.UNAVAILABLE,
        reason=reason,
    )
