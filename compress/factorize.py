"""The step ``factorize``: layers become products of smaller ones (SVD, Tucker, CP)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import nn

from compress import layers
from compress.errors import CompressError, first_line
from compress.fine_tune import FineTuning, fine_tune
from compress.journal import finite_weights, key_of
from compress.low_rank import candidates as low_rank
from compress.low_rank import decompose, factors, rank_search
from compress.low_rank.candidates import Candidate, Rank
from compress.low_rank.factors import Method, Ranks
from compress.passes import evaluate
from compress.recipe import State, StepConfig, handles
from compress.task import Inputs

_LADDER = (0.995, 0.98, 0.95, 0.9, 0.8, 0.65, 0.5, 0.3)
_CP_LADDER = (0.9, 0.75, 0.6, 0.45, 0.3, 0.2, 0.1, 0.05)


class Factorize(StepConfig):
    """Low-rank factors for linear layers and convolutions that need fewer operations with them.

    Linear layers and 1x1 convolutions by SVD, other ones as ``convolution`` says. ``rank`` is the
    rule for all layers, ``overrides`` (name pattern -> rule, the first that matches) for some.
    ``max_metric_drop`` instead of ``rank`` searches ranks on the validation data. ``data_aware``
    takes the components of the layers' outputs on calibration data, for what is done by SVD.
    """

    kind: Literal["factorize"] = "factorize"
    layers: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    convolution: Method = "tucker"
    rank: Rank | None = None
    overrides: dict[str, Rank] = Field(default_factory=dict)
    max_metric_drop: float | None = Field(default=None, ge=0)
    round_to: int = Field(default=1, ge=1)
    data_aware: bool = False
    calibration_samples: int = Field(default=64, ge=1)
    fine_tune: FineTuning | None = None

    @model_validator(mode="after")
    def _one_rule(self) -> Factorize:
        if (self.rank is None) == (self.max_metric_drop is None):
            raise ValueError("needs either rank or max_metric_drop")
        return self


@handles(Factorize)
def factorize(state: State, config: Factorize) -> State:
    """Replace layers by their factors under the same names, then fine-tune if asked to."""
    model, task, run = state.float_model(), state.task, state.run
    finite_weights(model, "before factorizing")
    chosen = layers.select(model, config.layers, config.exclude, low_rank.TYPES)
    found, left = low_rank.find(model, chosen, config.convolution, task.example_inputs)
    if config.data_aware:
        if not task.calibration:
            raise CompressError(
                "data_aware needs calibration data", hint="Give Task(calibration=[...])."
            )
        low_rank.observe(model, found, list(task.calibration)[: config.calibration_samples])
    candidates = {candidate.name: candidate for candidate in found}
    picked = _by_rules(model, candidates, config, state)
    if config.max_metric_drop is not None:
        picked = {**_by_search(model, candidates, config, state, picked), **picked}
    for name, candidate in candidates.items():
        if name not in picked:
            left[name] = "no rank that pays keeps the metric"
        elif not candidate.pays(picked[name]):
            del picked[name]
            left[name] = "its operations would not become fewer"
    if not picked:
        reasons = "; ".join(f"'{name}': {reason}" for name, reason in list(left.items())[:5])
        raise CompressError(
            f"no layer can be factorized ({reasons or 'there is none'})",
            hint="Choose a lower rank or other layers.",
        )
    before = sum(c.macs() for c in candidates.values())
    notes = _notes(candidates, picked, left)
    errors = []
    for name, ranks in picked.items():
        by = candidates[name].replacement(ranks, run.derived_seed(name))
        errors.append(_error(candidates[name], by))
        model = low_rank.replace_layer(model, candidates[name].layer, by)
    after = sum(c.macs(picked.get(name)) for name, c in candidates.items())
    notes.insert(
        0,
        f"{len(picked)} of {len(chosen)} layers factorized: {before:,} -> {after:,} MACs in the "
        f"{len(candidates)} that can be, weights changed by {min(errors):.1%} to {max(errors):.1%}",
    )
    _check_runs(model, task.example_inputs)
    if config.fine_tune is not None:
        notes.append(fine_tune(model, task, config.fine_tune, run).words())
    return replace(state, model=model, notes=tuple(notes))


def _by_rules(
    model: nn.Module, candidates: Mapping[str, Candidate], config: Factorize, state: State
) -> dict[str, Ranks]:
    """Ranks of the layers that have a rule; a pattern of ``overrides`` must match a layer."""
    rules: dict[str, Rank] = {}
    for pattern, rule in config.overrides.items():
        try:
            matching = layers.select(model, [pattern], (), low_rank.TYPES)
        except CompressError as error:
            raise CompressError(error.what, where="overrides", hint=error.hint) from error
        for name in matching:
            rules.setdefault(name, rule)
    picked = {}
    for name, candidate in candidates.items():
        wanted = rules.get(name, config.rank)
        if wanted is not None:
            seed = state.run.derived_seed(name)
            picked[name] = low_rank.ranks_by(wanted, candidate, config.round_to, seed)
    return picked


def _by_search(
    model: nn.Module,
    candidates: Mapping[str, Candidate],
    config: Factorize,
    state: State,
    fixed: Mapping[str, Ranks],
) -> dict[str, Ranks]:
    task, run = state.task, state.run
    if not task.validation:
        raise CompressError(
            "max_metric_drop needs task.validation, which is empty",
            hint="Give Task(validation=[...]), or a rank.",
        )
    allowed = config.max_metric_drop
    assert allowed is not None
    start = evaluate(model, task, task.validation)

    def drop_of(choice: rank_search.Choice) -> float:
        trial = copy.deepcopy(model)
        for name, ranks in {**fixed, **choice}.items():
            if candidates[name].pays(ranks):
                by = candidates[name].replacement(ranks, run.derived_seed(name))
                trial = low_rank.replace_layer(trial, trial.get_submodule(name), by)
        return task.metric.gain(start, evaluate(trial, task, task.validation))

    ladders = {
        name: _ladder(candidate, config.round_to, run.derived_seed(name))
        for name, candidate in candidates.items()
        if name not in fixed
    }

    def compute() -> dict[str, list[int]]:
        found = rank_search.search(ladders, candidates, drop_of, allowed, run.say)
        return {name: list(ranks) for name, ranks in found.items()}

    how = config.model_dump(exclude={"fine_tune"})
    key = "ranks-" + key_of(
        [run.seed, run.place, how, ladders, run.data_print(task)],
        [[c.name, c.method, c.moments and c.moments.fingerprint()] for c in candidates.values()],
        model,
        task.metric,
    )
    return {name: tuple(ranks) for name, ranks in run.remember(key, compute).items()}


def _ladder(candidate: Candidate, round_to: int, seed: int) -> list[Ranks]:
    """Ranks to try, falling, of those that pay."""
    cp = candidate.method == "cp"
    rules = [Rank(fraction=f) for f in _CP_LADDER] if cp else [Rank(energy=e) for e in _LADDER]
    ladder: dict[Ranks, None] = {}
    for rule in rules:
        ranks = low_rank.ranks_by(rule, candidate, round_to, seed)
        if candidate.pays(ranks):
            ladder[ranks] = None
    return list(ladder)


def _notes(
    candidates: Mapping[str, Candidate], picked: Mapping[str, Ranks], left: Mapping[str, str]
) -> list[str]:
    def words(name: str) -> str:
        pairs = zip(picked[name], candidates[name].full(), strict=True)
        ranks = " x ".join(f"{rank} of {full}" for rank, full in pairs)
        return f"{name or 'model'} {candidates[name].method} {ranks}"

    notes = ["ranks: " + ", ".join(words(name) for name in picked)]
    lost = [name for name in picked if low_rank.masked(candidates[name])]
    if lost:
        notes.append(f"masks or codebooks of {', '.join(lost)} are gone: factors are new weights")
    reasons: dict[str, list[str]] = {}
    for name, reason in left.items():
        reasons.setdefault(reason, []).append(name)
    notes += [f"left alone ({reason}): {', '.join(names)}" for reason, names in reasons.items()]
    return notes


def _error(candidate: Candidate, by: nn.Sequential) -> float:
    weights = [parameter for name, parameter in by.named_parameters() if name.endswith("weight")]
    return decompose.relative_error(candidate.weight(), factors.product(weights, candidate.method))


def _check_runs(model: nn.Module, example: Inputs) -> None:
    try:
        with torch.no_grad():
            model(*example)
    except Exception as error:
        raise CompressError(
            f"the model cannot run with factors: {type(error).__name__}: {first_line(error)}",
            hint="It may use a layer's weight by itself; exclude that layer.",
        ) from error
