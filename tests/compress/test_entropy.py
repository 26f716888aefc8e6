"""The packed container: the same bits back, small, and an error for everything that is not one."""

from __future__ import annotations

import hashlib
import math
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compress import entropy
from compress.errors import CompressError
from compress.packing import container, rans, vectors
from compress.packing.elements import FORMS
from compress.packing.sideinfo import Writer, choice, integer

DTYPES = [form.dtype for form in FORMS]


def bits_of(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert list(found) == list(wanted)
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert bits_of(found[name]) == bits_of(tensor), name


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pruned(seed: int, rows: int, columns: int, kept: float, values: int = 16) -> Tensor:
    """A pruned layer with shared values, its columns of very different densities."""
    random = np.random.default_rng(seed)
    likely = random.gamma(0.5, size=columns)
    mask = random.random((rows, columns)) < likely / likely.mean() * kept
    book = np.sort(random.normal(size=values)).astype(np.float32)
    drawn = book[random.integers(0, values, (rows, columns))]
    return torch.from_numpy(np.where(mask, drawn, np.float32(0)))


@st.composite
def any_tensor(draw: st.DrawFn) -> Tensor:
    """Any dtype and shape; values from everything, from few, or mostly zero."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.sampled_from([0, 1, 2, 3, 5, 17]), max_size=4))
    count = math.prod(shape) * dtype.itemsize
    seed = draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    if dtype is torch.bool:
        data = random.integers(0, 2, count, dtype=np.uint8)
    else:
        data = random.integers(0, 256, count, dtype=np.uint8)
    kind = draw(st.sampled_from(["all", "few", "zeros"]))
    elements = data.reshape(-1, dtype.itemsize)
    if len(elements) and kind == "few":
        elements = elements[random.integers(0, min(3, len(elements)), len(elements))]
    elif kind == "zeros":
        elements = elements * (random.random((len(elements), 1)) < 0.1).astype(np.uint8)
    flat = torch.from_numpy(np.ascontiguousarray(elements).reshape(-1))
    return flat.view(dtype).reshape(shape)


@settings(max_examples=60, deadline=None)
@given(st.lists(any_tensor(), max_size=4), st.sampled_from(["huffman", "rans"]))
def test_any_tensors_come_back_bit_for_bit(tensors: list[Tensor], coder: entropy.Coder) -> None:
    named = {f"layer{number}.weight": tensor for number, tensor in enumerate(tensors)}
    assert_same(entropy.unpack(entropy.pack(named, coder=coder)), named)


def test_bits_that_compare_equal_or_unequal_to_themselves_are_kept() -> None:
    odd = torch.tensor(
        [0x7FC00001, 0xFFC12345 - 2**32, 0x7F800000, -(2**31), 0, 1], dtype=torch.int32
    )
    named = {"odd": odd.view(torch.float32), "halves": torch.tensor([-0.0, 0.0, 65504.0]).half()}
    assert math.copysign(1, float(named["odd"][3])) == -1
    assert_same(entropy.unpack(entropy.pack(named)), named)


def test_layouts_and_parameters_are_packed_by_their_values() -> None:
    across = noise(0, 4, 6).T
    named = {
        "across": across,
        "every.second": noise(1, 20)[::2],
        "p": torch.nn.Parameter(noise(2, 3)),
    }
    wanted = {name: tensor.detach() for name, tensor in named.items()}
    assert_same(entropy.unpack(entropy.pack(named)), wanted)


@pytest.mark.parametrize("coder", ["huffman", "rans"])
def test_large_sparse_shared_and_dense_layers_come_back(coder: entropy.Coder) -> None:
    """Large enough for many lanes, classes of rows, levels of columns, and piles."""
    rows = torch.exp2(noise(3, 256, 1) * 2)
    named = {
        "sparse": pruned(4, 300, 784, 0.05),
        "int8": (noise(5, 256, 700) * rows).clamp(-127, 127).to(torch.int8),
        "float": noise(6, 300, 300),
        "few": torch.tensor([-1.5, 0.25, 2.0])[torch.arange(90_000).reshape(300, 300) % 7 % 3],
        **{f"block.{n}.bias": noise(n, 40) for n in range(40)},
    }
    packed = entropy.pack(named, coder=coder)
    assert container.read(packed).piles == b"" or coder == "rans"
    assert_same(entropy.unpack(packed), named)


def test_side_information_of_many_tensors_goes_to_piles(monkeypatch: pytest.MonkeyPatch) -> None:
    named = {f"layer.{n}.weight": noise(n, 64, 9).to(torch.int8) for n in range(30)}
    named |= {f"layer.{n}.wide": pruned(n, 40, 400, 0.1) for n in range(5)}
    monkeypatch.setattr(entropy, "_FEW", 2000)
    packed = entropy.pack(named, coder="rans")
    assert container.read(packed).piles
    assert_same(entropy.unpack(packed), named)


@pytest.mark.parametrize("coder", ["huffman", "rans"])
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8])
def test_bytes_of_wide_spread_are_coded_in_pairs(
    coder: entropy.Coder, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the symbols for at most a hundredth more bytes, whatever else would be smaller."""
    shift = 128 if dtype is torch.uint8 else 0
    wide = (noise(30, 60, 100) * 30).clamp(-128, 127).add(shift).to(dtype)
    named = {"wide": wide, "odd": wide[:, :99].contiguous(), "narrow": (wide // 16).contiguous()}
    packed = entropy.pack(named, coder=coder)
    assert_same(entropy.unpack(packed), named)
    rows = {row.name: row.encoding for row in entropy.describe(packed)}
    assert rows["wide"] == "pairs"
    assert "pairs" not in (rows["odd"], rows["narrow"])
    with monkeypatch.context() as patched:
        patched.setattr(vectors, "WORTH_MORE_SYMBOLS", 2.0)
        plain = entropy.pack({"wide": wide}, coder=coder)
    assert entropy.describe(plain)[0].encoding in ("planes", "sparse planes")
    assert len(entropy.pack({"wide": wide}, coder=coder)) < 1.01 * len(plain)


def test_names_and_metadata_are_kept() -> None:
    named = {"": noise(0, 2), "a": noise(1, 2), "a.b": noise(2, 2), "Schicht.größe": noise(3, 2)}
    for metadata in (b"", b"x", b"graph" * 5000, bytes(range(256))):
        packed = entropy.pack(named, metadata=metadata)
        assert entropy.metadata_of(packed) == metadata
        assert_same(entropy.unpack(packed), named)
        assert len(packed) < 300 + len(metadata)


def test_same_input_gives_the_same_bytes() -> None:
    named = {"w": pruned(7, 60, 80, 0.2), "b": noise(8, 60)}
    copies = {name: tensor.clone() for name, tensor in named.items()}
    assert entropy.pack(named) == entropy.pack(copies)


def test_tied_weights_are_stored_once() -> None:
    one = entropy.packed_size({"embed": noise(9, 100, 16)})
    two = entropy.packed_size({"embed": noise(9, 100, 16), "head": noise(9, 100, 16)})
    assert two < one + 20


def test_packed_size_is_the_size() -> None:
    named = {"w": pruned(10, 50, 50, 0.1)}
    assert entropy.packed_size(named) == len(entropy.pack(named))


def test_a_pruned_layer_takes_little_more_than_its_entropy() -> None:
    """Positions are held against their entropy, given each column's density for nothing."""
    weight = pruned(11, 300, 784, 0.03)
    mask = weight.numpy() != 0
    density = mask.mean(0)
    inner = density[(density > 0) & (density < 1)]
    positions = -300 * (inner * np.log2(inner) + (1 - inner) * np.log2(1 - inner)).sum()
    values = 4 * mask.sum()
    packed = entropy.packed_size({"w": weight})
    assert packed < (positions + values) / 8 * 1.08 + 150
    overall = mask.mean()
    flat = -(overall * np.log2(overall) + (1 - overall) * np.log2(1 - overall)) * mask.size
    # Knowing the columns is what makes it small: without, the mask alone would take more.
    assert packed < (flat + values) / 8
    assert packed < 0.75 * len(zlib.compress(weight.numpy().tobytes(), 9))


@pytest.mark.parametrize(
    ("tensor", "bits"),
    [
        (torch.zeros(500, 500), 0.01),
        (torch.full((500, 500), 0.1), 0.01),
        (torch.tensor([0.5, -2.0])[torch.arange(200_000) * 7919 % 65537 % 2], 1.02),
        ((noise(12, 400, 400) * 20).clamp(-127, 127).to(torch.int8), 6.5),
        (noise(13, 400, 400), 28.5),
    ],
    ids=["zeros", "constant", "binary", "int8", "float32"],
)
def test_bits_per_weight(tensor: Tensor, bits: float) -> None:
    assert 8 * entropy.packed_size({"w": tensor}) / tensor.numel() < bits


def test_noise_costs_no_more_than_the_frame() -> None:
    data = torch.from_numpy(np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8))
    assert entropy.packed_size({"w": data}) <= 5000 + 40


def test_rows_of_different_spread_get_tables_of_their_own() -> None:
    rows = torch.exp2(torch.arange(64) % 4 * 1.5)[:, None]
    mixed = (noise(14, 64, 2000) * rows).clamp(-127, 127).to(torch.int8)
    each = [entropy.packed_size({"w": mixed[n::4]}) for n in range(4)]
    assert entropy.packed_size({"w": mixed}) < sum(each) * 1.01


def test_describe_accounts_for_every_byte() -> None:
    named = {
        "sparse": pruned(15, 100, 200, 0.1),
        "palette": torch.tensor([1.0, 2.0, 3.0])[torch.arange(900).reshape(30, 30) % 3],
        "dense": noise(16, 50, 50),
        "again": noise(16, 50, 50),
        "empty": torch.zeros(0, 3),
    }
    packed = entropy.pack(named, coder="rans", metadata=b"m")
    rows = {row.name: row for row in entropy.describe(packed)}
    assert [rows[name].encoding for name in named] == [
        "sparse codebook",
        "codebook",
        "planes",
        "same",
        "raw",
    ]
    assert rows["sparse"].index_bytes > rows["sparse"].table_bytes > 16 * 4
    assert rows["palette"].index_bytes < 1
    assert rows["empty"].bits_per_weight is None
    dense = rows["dense"].bits_per_weight
    assert dense is not None
    assert 24 < dense < 32
    total = sum(row.packed_bytes for row in rows.values())
    assert total <= len(packed) <= total + 45


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(3, device="meta"),
        torch.eye(3).to_sparse(),
        torch.zeros(2, dtype=torch.uint8).view(torch.float8_e4m3fnuz),
    ],
    ids=["meta", "sparse", "float8 of another kind"],
)
def test_other_tensors_are_refused_by_name(tensor: Tensor) -> None:
    with pytest.raises(CompressError, match=r"net\.weight: cannot pack"):
        entropy.pack({"net.weight": tensor})


def test_an_endless_name_is_refused() -> None:
    with pytest.raises(CompressError, match="name"):
        entropy.pack({"n" * 5000: torch.ones(1)})


# --- damage ---------------------------------------------------------------------------------------


def small_file() -> bytes:
    named = {"w": pruned(17, 12, 20, 0.3), "b": noise(18, 5), "i": torch.arange(7)}
    return entropy.pack(named, metadata=b"graph " * 10)


def resealed(data: bytes) -> bytes:
    """``data`` with the checksum that fits what it has become."""
    body = data[: -container.CHECKSUM_BYTES]
    return body + hashlib.sha256(body).digest()[: container.CHECKSUM_BYTES]


def test_every_flipped_byte_is_noticed() -> None:
    data = small_file()
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        with pytest.raises(CompressError):
            entropy.unpack(bytes(damaged))


def test_every_truncation_and_anything_behind_is_noticed() -> None:
    data = small_file()
    for length in range(len(data)):
        with pytest.raises(CompressError):
            entropy.unpack(data[:length])
    for more in (b"\0", b"garbage", data):
        with pytest.raises(CompressError):
            entropy.unpack(data + more)


FILES = {
    "rans": entropy.pack({"w": pruned(19, 40, 60, 0.2), "b": noise(20, 9)}, coder="rans"),
    "huffman": entropy.pack({"w": pruned(19, 40, 60, 0.2), "b": noise(20, 9)}, coder="huffman"),
    "lanes": entropy.pack({"w": (noise(21, 90, 900) * 9).to(torch.int8)}, coder="rans"),
    "pairs": entropy.pack({"w": (noise(22, 70, 72) * 30).to(torch.int8)}, coder="rans"),
}
with pytest.MonkeyPatch.context() as patched:
    patched.setattr(entropy, "_FEW", 0)
    FILES["piles"] = entropy.pack({"w": pruned(19, 40, 60, 0.2), "b": noise(20, 9)}, coder="rans")


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(FILES)), st.data())
def test_forged_files_give_tensors_or_one_error(name: str, data: st.DataObject) -> None:
    """With a checksum that fits, the structure alone must hold."""
    forged = bytearray(FILES[name])
    # The headers are where a change does most.
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(5, min(len(forged) - 9, 400)))
        forged[place] = data.draw(st.integers(0, 255))
    try:
        found = entropy.unpack(resealed(bytes(forged)), max_bytes=10_000_000)
    except CompressError:
        return
    assert sum(t.numel() * t.element_size() for t in found.values()) <= 10_000_000


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60), st.binary(max_size=30), st.binary(max_size=40), st.integers(0, 1))
def test_arbitrary_sections_give_tensors_or_one_error(
    side: bytes, raw: bytes, symbols: bytes, coder: int
) -> None:
    sections = container.Sections(coder, side, b"", raw, symbols, b"")
    try:
        entropy.unpack(container.write(sections), max_bytes=1_000_000)
    except CompressError:
        return


def declaring(*shape: int) -> bytes:
    """A file whose only tensor has that shape, coded as nothing but zeros."""
    port = Writer()
    integer(port, entropy._TENSORS, 1)
    integer(port, entropy._PREFIX, 0)
    integer(port, entropy._SUFFIX, 0)
    choice(port, entropy._FORM, 5, 0)
    integer(port, entropy._DIMENSIONS, len(shape))
    for size in shape:
        integer(port, entropy._DIMENSION, size)
    return container.write(container.Sections(0, port.finish(), b"", b"", b"", b""))


@pytest.mark.parametrize("shape", [(2**60,), (2**31, 2**31), (2**61, 0, 2**61), (1 << 30,)])
def test_impossible_sizes_are_refused_before_anything_is_allocated(shape: tuple[int, ...]) -> None:
    with pytest.raises(CompressError, match=r"declares|too large"):
        entropy.unpack(declaring(*shape))


def test_the_limit_is_over_all_tensors() -> None:
    data = entropy.pack({f"z{number}": torch.full((1000,), 1.0 + number) for number in range(5)})
    assert len(entropy.unpack(data, max_bytes=20_000)) == 5
    with pytest.raises(CompressError, match="more than may be unpacked"):
        entropy.unpack(data, max_bytes=19_999)


def test_tensors_and_tables_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    named = {"a": noise(0, 30, 30), "b": noise(1, 30, 30)}
    data = entropy.pack(named)
    for limit, message in (("_MAX_TABLES", "too many tables"), ("_MAX_TENSORS", "declares 2")):
        with monkeypatch.context() as patched:
            patched.setattr(entropy, limit, 1)
            with pytest.raises(CompressError, match=message):
                entropy.unpack(data)
            with pytest.raises(CompressError, match="too many for one container"):
                entropy.pack(named)


def test_a_bomb_of_metadata_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = entropy.pack({}, metadata=bytes(1_000_000))
    assert len(data) < 1500
    monkeypatch.setattr(container, "MAX_METADATA_BYTES", 999_999)
    with pytest.raises(CompressError, match="1,000,000 bytes of metadata"):
        entropy.unpack(data)


def test_symbols_left_over_are_noticed() -> None:
    sections = container.read(FILES["rans"])
    longer = container.Sections(
        0, sections.side, b"", sections.raw, sections.symbols + bytes(4), sections.metadata
    )
    with pytest.raises(CompressError, match="do not end"):
        entropy.unpack(container.write(longer))
    assert rans.decode([], b"").size == 0
