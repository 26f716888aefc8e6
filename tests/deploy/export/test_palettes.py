"""Palettes save bytes and decode to exactly the clustered weights, read back from the package."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compress.capture import capture
from compress.cluster import Cluster, Table, cluster
from compress.constraints import materialize
from compress.fold import FoldBatchNorm, fold_batch_norm_step
from compress.pruning.weights import weights_of
from compress.recipe import State
from compress.sparsify import Prune, prune
from deploy.export import coreml
from deploy.export.options import CoreMLTarget
from deploy.export.palettes import BITS, choose
from deploy.types import Format
from tests.compress.networks import images, task_of


@settings(deadline=None)
@given(
    channels=st.sampled_from([4, 6, 12]),
    values=st.integers(1, 40),
    group=st.integers(1, 12),
    inner=st.sampled_from([9, 64, 300]),
    grouped=st.booleans(),
)
def test_choice_is_the_smallest_of_all_that_can_hold_it(
    channels: int, values: int, group: int, inner: int, grouped: bool
) -> None:
    generator = np.random.default_rng(values)
    weight = np.concatenate(
        [
            generator.choice(generator.normal(size=values), (min(group, channels - at), inner))
            for at in range(0, channels, group)
        ]
    ).astype(np.float16)
    found = choose(weight, grouped=grouped)
    costs = {0.0: weight.nbytes}
    for size in range(1, channels + 1):
        if channels % size or (size != channels and not grouped):
            continue
        count = max(len(np.unique(part)) for part in np.split(weight, channels // size))
        fits = [b for b in BITS if 2**b >= count and (grouped or b != 3)]
        for bits in fits:
            costs[size + bits / 100] = weight.size * bits / 8 + channels // size * 2**bits * 2
    least = min(costs.values())
    assert weight.nbytes - (found.saved_bytes if found else 0) == pytest.approx(least)


def test_choice_refuses_what_has_no_few_values() -> None:
    generator = np.random.default_rng(0)
    assert choose(generator.normal(size=(64, 300)).astype(np.float16)) is None
    assert choose(np.ones((1, 64), np.float16)) is not None
    assert choose(np.ones(64, np.float16)) is None
    assert choose(np.full((4, 64), np.nan, np.float16)) is None
    assert choose(np.ones((4, 64), np.int8)) is None


class Mixed(nn.Module):
    """Convolutions with a norm behind, a transposed one, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.middle = nn.Conv2d(16, 32, 3, padding=1)
        self.up = nn.ConvTranspose2d(32, 8, 2, stride=2)
        self.head = nn.Linear(8, 40)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        return self.head(self.up(self.middle(x)).mean((2, 3)))


def clustered(group_size: int | None, keep: float | None) -> nn.Module:
    torch.manual_seed(0)
    model = Mixed().eval()
    nn.init.uniform_(model.norm.weight, 0.5, 2)
    state = fold_batch_norm_step(State(task_of(model), copy.deepcopy(model), None), FoldBatchNorm())
    if keep is not None:
        state = prune(state, Prune(keep=keep))
    config = Cluster(bits=4, group_size=group_size, overrides={"head": Table(bits=2)})
    return materialize(cluster(state, config).float_model())


def exported(model: nn.Module, folder: Path, **options: Any) -> Path:
    target = CoreMLTarget(format=Format.COREML, **options)
    (written,) = coreml.export(capture(model, images(1, 1)[0]), target, folder, "m")
    return written.path


def decoded(package: Path) -> list[tuple[str, np.ndarray]]:
    """(operator, value) of every weight in the package, tables looked up."""
    import coremltools as ct
    from coremltools.converters.mil.frontend.milproto.load import load

    model = ct.models.MLModel(str(package), skip_model_load=True)
    spec = model.get_spec()
    program = load(spec, spec.specificationVersion, file_weights_dir=model.weights_dir)
    found = []
    for operation in program.functions["main"].operations:
        if operation.op_type == "const" and operation.outputs[0].rank >= 2:
            reader = operation.outputs[0].child_ops[0].op_type
            if not reader.startswith("constexpr"):
                found.append(("const", operation.val.val))
        elif operation.op_type.startswith("constexpr"):
            found.append((operation.op_type, operation.materialized_val_inference()))
    return found


def package_bytes(package: Path) -> int:
    return sum(path.stat().st_size for path in package.rglob("*") if path.is_file())


@pytest.mark.slow
@pytest.mark.parametrize(("group_size", "keep"), [(None, None), (8, 0.5)])
def test_decoded_weights_are_the_clustered_ones(
    tmp_path: Path, group_size: int | None, keep: float | None
) -> None:
    model = clustered(group_size, keep)
    package = exported(model, tmp_path)
    tables = [value for kind, value in decoded(package) if kind == "constexpr_lut_to_dense"]
    wanted = {weight.full_name: weight.value.numpy() for weight in weights_of(model)}
    assert len(tables) == len(wanted)
    for name, weight in wanted.items():
        same = [t for t in tables if t.shape == weight.shape]
        assert any(np.array_equal(t.astype(np.float32), weight) for t in same), name
    if group_size is not None:
        return
    plain = exported(model, tmp_path / "plain", palettes="off")
    assert all(kind == "const" for kind, _ in decoded(plain))
    weights = sum(weight.size for weight in wanted.values())
    # 2 bytes become 4 bits and tables; each entry of the weight file is aligned to 64 bytes.
    assert package_bytes(plain) - package_bytes(package) > weights * (2 - 0.5) * 0.6


def test_older_targets_have_one_table_a_weight(tmp_path: Path) -> None:
    package = exported(clustered(None, None), tmp_path, minimum_deployment_target="iOS16")
    assert sum(kind == "constexpr_lut_to_dense" for kind, _ in decoded(package)) == 4


def test_a_dense_model_is_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    package = exported(Mixed().eval(), tmp_path)
    assert all(kind == "const" for kind, _ in decoded(package))
