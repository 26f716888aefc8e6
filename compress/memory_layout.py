"""How tensors lie in memory while a model is trained: nothing of what it computes, but how fast.

Convolutions on CPUs train up to twice as fast when channels are the innermost axis (PyTorch's
``channels_last``). glibc by default gives large blocks back to the kernel each time that they are
freed, which then has to find and clear the same pages again for the next batch.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
from collections.abc import Callable, Iterator

import torch
from torch import nn

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""``M_TRIM_THRESHOLD`` and ``M_MMAP_THRESHOLD`` of glibc's ``malloc.h``."""
_KEPT_BYTES = 2**31 - 1


@contextlib.contextmanager
def channels_last(model: nn.Module, runs: Callable[[nn.Module], object]) -> Iterator[bool]:
    """Lay out the four-dimensional tensors of ``model`` with channels innermost, for a block.

    Yields whether it did. A model without such parameters, or whose owner chose a layout already,
    stays as it is, and so does one that cannot do with it (``Tensor.view`` needs the layout that it
    was written for): ``runs`` tries that on a copy, and raises where it cannot.
    """
    moves = can_be_channels_last(model, runs)
    if moves:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        yield moves
    finally:
        if moves:
            model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def can_be_channels_last(model: nn.Module, runs: Callable[[nn.Module], object]) -> bool:
    """Whether :func:`channels_last` changes the layout of a model."""
    four = [p for p in model.parameters() if p.ndim == 4]
    if not four or not all(p.is_contiguous() for p in four):
        return False
    try:
        trial = copy.deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        with torch.random.fork_rng(devices=[]):
            runs(trial)
    except Exception:  # whatever it is, the model's own layout has no such trouble
        return False
    return True


@contextlib.contextmanager
def pages_kept() -> Iterator[None]:
    """Keep freed memory in this process until the end of the block; nothing where that is unknown.

    Afterwards the most that glibc adapts its thresholds to by itself holds, and what is free goes
    back to the system.
    """
    set_option, trim = (getattr(_C_LIBRARY, name, None) for name in ("mallopt", "malloc_trim"))
    if set_option is None or trim is None:
        yield
        return
    set_option(_MMAP_THRESHOLD, _KEPT_BYTES)
    set_option(_TRIM_THRESHOLD, _KEPT_BYTES)
    try:
        yield
    finally:
        set_option(_MMAP_THRESHOLD, 32 * 2**20)
        set_option(_TRIM_THRESHOLD, 64 * 2**20)
        trim(0)


def _c_library() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(None)
    except (OSError, TypeError):  # no such thing as the process's own symbols
        return None


_C_LIBRARY = _c_library()
