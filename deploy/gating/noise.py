"""What is known of a device's noise before a gate: its certificates; finer wishes are refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deploy.bench.runner import BACKENDS
from deploy.errors import ConfigError
from deploy.gating.measuring import Contact, Plan
from deploy.report import certificate_files, certificates
from deploy.report.comparable import Circumstances, device_hash
from deploy.types import Certificate, GateRules, Metric


@dataclass(frozen=True)
class Noise:
    """The certificates that hold for what is compared, and why others do not."""

    certificates: tuple[Certificate, ...] = ()
    notes: tuple[str, ...] = ()


def known_noise(contact: Contact, plan: Plan, folder: Path) -> Noise:
    """The newest certificate for each format and thread count that is compared on this device."""
    info = contact.run.info
    found: dict[str, Certificate] = {}
    notes: dict[str, None] = {}
    formats = {plan.meeting.head.artifact(name).format for name in plan.meeting.names}
    for one in sorted(formats):
        for threads in plan.threads:
            at = Circumstances(
                tier=info.tier if info else contact.run.profile.tier,
                profile=contact.run.profile.name,
                device_sha256=device_hash(contact.identity),
                runtime=one.value,
                runtime_version=contact.runtimes.get(BACKENDS.get(one, "")),
                os_build=info.os_build if info else None,
                threads=threads,
                preset=plan.limits.name,
            )
            answer = certificate_files.find(folder, at)
            notes |= dict.fromkeys(answer.notes)
            if answer.certificate is not None:
                found[answer.certificate.model_dump_json()] = answer.certificate
    return Noise(tuple(found.values()), tuple(notes))


def refuse_too_fine(noise: Noise, contact: Contact, rules: GateRules) -> None:
    """``ConfigError`` where a threshold was asked for that this device cannot tell from nothing.

    The default threshold is not refused: it is the least that counts, and a device that is noisier
    is held to what it can tell (docs/gate-method.md).
    """
    if contact.counts or rules.threshold == GateRules().threshold:
        return
    metric = rules.primary or Metric.LATENCY_MS
    if why := certificates.too_fine(noise.certificates, metric, rules.threshold, rules.pairs):
        raise ConfigError(
            why,
            where=contact.run.profile.name,
            hint="Ask for a larger --threshold or more --pairs, or calibrate on a quieter device.",
        )
