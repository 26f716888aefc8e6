"""The path that data takes, top to bottom: compress, export, verify, bench, report.

Each stage reads its input from the run folder and leaves its output there, so each can be run alone
and an interrupted run goes on with what is missing.
"""

from __future__ import annotations

from functools import partial

from compress import recipe
from deploy import __version__, ledger_cost, provenance, stored, workspace
from deploy.bench import fleet
from deploy.bench.absence import check_lost
from deploy.bench.passes.choice import passes_for
from deploy.bench.runner import preset
from deploy.bench.session import run_device
from deploy.config import DeviceConfig
from deploy.connect import at_once, check
from deploy.export.options import Written
from deploy.export.parallel import export_all
from deploy.harness import bundle
from deploy.report import budgets, compare, formats, gate, render, store
from deploy.types import Progress, Report
from deploy.verify.parity import ParityLimits, verify
from deploy.workspace import RunFolder


def run(folder: RunFolder, progress: Progress) -> Report:
    """All stages whose output is not there yet. A failed parity keeps the phones out of it."""
    for stage in (run_compress, run_export, run_verify):
        stage(folder, progress)
    if not stored.parity_failed(folder):
        run_bench(folder, progress)
    return run_report(folder, progress)


def run_compress(folder: RunFolder, progress: Progress) -> None:
    """Task -> one program a variant, the ledger, and the outputs that everything is held to."""
    config = folder.config
    if not folder.compress.is_dir():
        progress("loading the task; what it prints itself is in log.txt")
        task = stored.task_of(folder)
        steps = config.recipe.steps if config.recipe else ()
        journal = workspace.journal(folder)
        with ledger_cost.measuring(folder, task, progress) as measure:
            made = recipe.apply(
                task, steps, seed=config.seed, progress=progress, journal=journal, measure=measure
            )
        with workspace.whole(folder.compress) as scratch:
            stored.write_compressed(scratch, task, made, config)
    stored.tell_ledger(folder, progress)
    stored.require(folder)


def run_export(folder: RunFolder, progress: Progress) -> None:
    """One file a variant and format, each with its manifest; variants at the same time."""
    stored.require(folder)
    for variant, news in export_all(stored.export_requests(folder)):
        if isinstance(news, Written):
            artifact = stored.write_manifest(folder, variant, news)
            progress(f"exported {artifact.name}: {artifact.bytes:,} bytes")
        else:
            progress(f"exporting {variant} as {news}")


def run_verify(folder: RunFolder, progress: Progress) -> None:
    """Every artifact on this machine against its program, on all evaluation samples."""
    artifacts = workspace.artifacts_of(folder)
    if len(stored.parity(folder, artifacts)) == len(artifacts):
        return
    samples, metric = stored.samples(folder), stored.metric_of(folder)
    rows = []
    for artifact in artifacts:
        progress(f"verifying {artifact.name} on {len(samples)} samples")
        row = verify(
            artifact,
            folder.artifacts / artifact.path,
            samples,
            stored.outputs(folder, artifact.variant),
            metric=metric,
            limits=folder.config.verify.get(artifact.variant, ParityLimits()),
        )
        rows.append(row)
        progress(f"parity of {artifact.name}: {stored.in_words(row)}")
    stored.write_parity(folder, artifacts, rows)


def run_bench(folder: RunFolder, progress: Progress) -> None:
    """Every artifact on every device: phones side by side, what computes here in turn."""
    config = folder.config.bench
    limits, keep = preset(config.preset, config.minutes), stored.keeper(folder)
    jobs = stored.bench_jobs(folder, workspace.artifacts_of(folder))

    def serve(wanted: DeviceConfig, guard: fleet.Guard, say: Progress) -> None:
        if (missing := stored.missing_jobs(folder, wanted, jobs)) is None:
            return
        asked = config.passes if wanted.passes is None else wanted.passes
        with at_once(wanted, say) as found:
            runner, device = bundle(found.profile.abi, say), guard(found)
            passes = passes_for(asked, limits, device.profile)
            row, _ = run_device(
                device, missing, runner, limits, progress=say, keep=keep, passes=passes
            )
        stored.write_device(folder, row)
        check_lost(row)

    def turn(wanted: DeviceConfig) -> fleet.Turn:
        give_up = partial(stored.write_absent, folder, wanted)
        return fleet.Turn(check(wanted), partial(serve, wanted), wanted.reach_s, give_up)

    fleet.serve_all([turn(wanted) for wanted in folder.config.devices], progress)


def run_report(folder: RunFolder, progress: Progress) -> Report:
    """Everything that is in the run folder -> report.json, report.md, index.html, verdicts."""
    progress("writing the report")
    config = folder.config
    artifacts = workspace.artifacts_of(folder)
    parity = stored.parity(folder, artifacts)
    devices, cases = stored.devices(folder), stored.cases(folder, artifacts)
    verdicts = budgets.verdicts(
        artifacts=artifacts, parity=parity, devices=devices, cases=cases, budgets=config.budgets
    )
    decision = gate.decide(verdicts)
    report = Report(
        pocketship_version=__version__,
        pipeline=config.name,
        run_id=folder.asked.run_id,
        created_utc=folder.asked.created_utc,
        commit=provenance.commit(folder),
        seed=config.seed,
        baseline_variant=config.baseline,
        machine=provenance.machine(),
        tools=provenance.tools(),
        ledger=stored.ledger(folder),
        artifacts=tuple(artifacts),
        parity=tuple(parity),
        devices=tuple(devices),
        cases=tuple(cases),
        comparisons=compare.comparisons(cases, artifacts, config.baseline, devices=devices),
        verdicts=tuple(verdicts),
        outcome=decision.outcome,
        exit_code=decision.exit_code,
    )
    for write in (store.write, render.write, formats.write):
        write(report, folder.root)
    store.point_latest(folder.root)
    return report
