"""The nouns of pocketship, as they stand in memory, in manifests and in ``report.json``.

Rules that the types keep, so that no report can break them:

* a number always carries its tier (where it comes from) and its unit (in the metric's name);
* a value that was not measured is ``unavailable`` / ``not_run`` / ``invalid`` / ``failed`` with a
  reason, never 0 and never an empty list without a word;
* what a profile declares and what a device answered are different types.

A module a theme, from what everything stands on to what a reader gets: ``base``, ``artifacts``,
``devices``, ``cases``, ``verdicts``, ``reports``, ``gates``. Import them from here.
"""

from compress.ledger import Cost, LedgerRow, Quality
from deploy.types.artifacts import Artifact, Parity, Placement, TensorSpec
from deploy.types.base import Format, Metric, Model, Progress, Status, Tier, silent
from deploy.types.cases import Case, DeviceRun, Measurement, OperatorCost
from deploy.types.devices import (
    BenchOverride,
    Core,
    DeviceInfo,
    DeviceProfile,
    DeviceState,
    EmulatorSpec,
    EnergySource,
    SimulatorSpec,
)
from deploy.types.gates import (
    Acceptance,
    Certificate,
    GateReport,
    GateRules,
    NoiseFigure,
    Session,
    Side,
)
from deploy.types.reports import REPORT_SCHEMA_VERSION, Comparison, Report
from deploy.types.verdicts import ARTIFACT_METRICS, Budget, Outcome, Paired, Verdict

__all__ = [
    "ARTIFACT_METRICS",
    "REPORT_SCHEMA_VERSION",
    "Acceptance",
    "Artifact",
    "BenchOverride",
    "Budget",
    "Case",
    "Certificate",
    "Comparison",
    "Core",
    "Cost",
    "DeviceInfo",
    "DeviceProfile",
    "DeviceRun",
    "DeviceState",
    "EmulatorSpec",
    "EnergySource",
    "Format",
    "GateReport",
    "GateRules",
    "LedgerRow",
    "Measurement",
    "Metric",
    "Model",
    "NoiseFigure",
    "OperatorCost",
    "Outcome",
    "Paired",
    "Parity",
    "Placement",
    "Progress",
    "Quality",
    "Report",
    "Session",
    "Side",
    "SimulatorSpec",
    "Status",
    "TensorSpec",
    "Tier",
    "Verdict",
    "silent",
]
