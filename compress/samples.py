"""What models are trained, calibrated and judged on: samples, and batches of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor

from compress.errors import ConfigError, first_line

Inputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class Sample:
    """One thing to judge: the model's inputs (with the batch axis) and what is right for it."""

    inputs: Inputs
    target: Tensor | None = None


class TensorSamples(Sequence[Sample]):
    """Many samples as whole tensors, so that batches of a large data set are cut and not joined.

    Args:
        inputs: one tensor an input, each of shape [samples, ...] without a batch axis of its own.
        targets: shape [samples, ...], or None.

    Item ``i`` is the sample with inputs ``[1, ...]`` and target ``[1, ...]``.
    """

    def __init__(self, inputs: Inputs, targets: Tensor | None = None) -> None:
        counts = {len(tensor) for tensor in (*inputs, *(() if targets is None else (targets,)))}
        if len(counts) != 1:
            raise ConfigError(
                f"tensors of {sorted(counts)} samples do not belong together", where="TensorSamples"
            )
        self.inputs = inputs
        self.targets = targets

    def __len__(self) -> int:
        return len(self.inputs[0])

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> TensorSamples: ...
    def __getitem__(self, index: int | slice) -> Sample | TensorSamples:
        if isinstance(index, slice):
            targets = None if self.targets is None else self.targets[index]
            return TensorSamples(tuple(tensor[index] for tensor in self.inputs), targets)
        at = range(len(self))[index]
        return self.batch(slice(at, at + 1))

    def batch(self, index: Tensor | slice) -> Sample:
        """The samples at ``index`` as one sample with that many rows."""
        targets = None if self.targets is None else self.targets[index]
        return Sample(tuple(tensor[index] for tensor in self.inputs), targets)


def batch(samples: Sequence[Sample], indices: Tensor) -> Sample:
    """The samples at ``indices`` (int64, [batch]) joined along axis 0, the batch axis."""
    if isinstance(samples, TensorSamples):
        return samples.batch(indices)
    chosen = [samples[index] for index in indices.tolist()]
    targets = [sample.target for sample in chosen]
    present = [
        target.reshape(-1) if target.ndim == 0 else target
        for target in targets
        if target is not None
    ]
    try:
        inputs = tuple(
            torch.cat(column) for column in zip(*(s.inputs for s in chosen), strict=True)
        )
        joined = torch.cat(present) if len(present) == len(targets) else None
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"samples cannot be joined to a batch: {first_line(error)}",
            where="task",
            hint="Inputs and targets of all samples need equal shapes but for axis 0.",
        ) from error
    return Sample(inputs, joined)


def fingerprint(samples: Sequence[Sample]) -> str:
    """Hex SHA-256 of all inputs and targets, so that a checkpoint is used for its own data only."""
    digest = hashlib.sha256()
    whole = samples.batch(slice(None)) if isinstance(samples, TensorSamples) else None
    for sample in (whole,) if whole else samples:
        for tensor in (*sample.inputs, sample.target):
            update(digest, tensor)
    return digest.hexdigest()


def update(digest: hashlib._Hash, tensor: Tensor | None) -> None:
    """Add dtype, shape and content of a tensor to a running hash."""
    if tensor is None:
        digest.update(b"none")
        return
    digest.update(f"{tensor.dtype}{list(tensor.shape)}".encode())
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    digest.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
