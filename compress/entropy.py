"""The packed container: named tensors, bit for bit, in as few bytes as their values allow.

The design is that of Han et al., *Deep Compression* (arXiv 1510.00149): relative indices of the
non-zeros, a codebook of shared values, entropy coding. For each tensor the smallest encoding is
chosen by what it really costs with all its tables. docs/packing.md describes the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from compress.errors import CompressError
from compress.packing import container, elements, prefix, rans, tensors
from compress.packing.container import Sections
from compress.packing.elements import FORM_OF, FORMS, Form
from compress.packing.lanes import Symbols
from compress.packing.piles import PileReader, PileWriter
from compress.packing.raw import RawReader
from compress.packing.sideinfo import Port, Reader, Writer, choice, integer
from compress.packing.tensors import Coding

Coder = Literal["auto", "huffman", "rans"]

MAX_BYTES = 1 << 31
"""Unless told otherwise, a container whose tensors are larger than 2 GiB in sum is refused."""

_MAX_TENSORS = 1 << 17
_MAX_TABLES = 1 << 17
"""A tensor or a table can take less than a bit of a forged file, but some KiB of memory."""
_MAX_DIMENSIONS = 64
_MAX_NAME_BYTES = 4096
_MAX_EXTENT = 1 << 62
"""The product of a shape's dimensions other than 0 stays below it, as torch needs."""
_FEW = 12_000
"""With fewer numbers of side information than this, adaptive contexts are fast enough."""
_TRIED_TWICE = 1 << 20
"""``auto`` tries both coders on containers of at most so many bytes of tensors; else rANS."""

# Contexts of what is stored (see sideinfo.integer).
_TENSORS, _FORM, _DIMENSIONS, _DIMENSION, _SAME, _WHICH = range(1, 7)
_PREFIX, _SUFFIX = 7, 8
_NAMES = 4
"""The pile of names' bytes (see sideinfo.Port.symbols)."""


@dataclass(frozen=True)
class Row:
    """What became of one tensor. Bytes are fractions: coders do not stop at bytes.

    ``encoding`` is ``raw``, ``planes``, ``codebook``, ``sparse ...`` or ``same`` (an earlier tensor
    of equal bits). ``index_bytes`` is all that positions take, ``table_bytes`` frequency tables and
    codebooks, ``value_bytes`` the values, ``header_bytes`` name, dtype and shape.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    encoding: str
    original_bytes: int
    header_bytes: float
    table_bytes: float
    index_bytes: float
    value_bytes: float

    @property
    def packed_bytes(self) -> float:
        """All parts; their sum over all rows is the file less its frame, lanes and metadata."""
        return self.header_bytes + self.table_bytes + self.index_bytes + self.value_bytes

    @property
    def bits_per_weight(self) -> float | None:
        """Packed bits an element; None for a tensor without elements."""
        count = elements.elements_in(self.shape)
        return 8 * self.packed_bytes / count if count else None


def pack(tensors: Mapping[str, Tensor], *, coder: Coder = "auto", metadata: bytes = b"") -> bytes:
    """The container of ``tensors``, in their order; the same input gives the same bytes.

    Args:
        tensors: plain dense tensors of any shape, scalars and empty ones too, by name.
        coder: what codes symbols; ``auto`` takes the smaller result (of large models: rANS).
        metadata: bytes of the caller's that are stored beside them, deflated or as LZMA.

    Raises:
        CompressError: a tensor is of a kind that cannot be packed, or a name is too long.
    """
    original = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if coder == "auto" and original > _TRIED_TWICE:
        coder = "rans"
    tried = (0, 1) if coder == "auto" else (int(coder == "huffman"),)
    packed = [container.write(_sections(tensors, number, metadata)) for number in tried]
    return min(packed, key=len)


def packed_size(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of what :func:`pack` gives, exactly."""
    return len(pack(tensors))


def unpack(data: bytes, *, max_bytes: int = MAX_BYTES) -> dict[str, Tensor]:
    """The tensors of a container, bit for bit as they were packed.

    Raises:
        CompressError: ``data`` is no container, is damaged, cut off or followed by something, or
            declares tensors of more than ``max_bytes`` in sum. Nothing is allocated before its
            size is known to be within that, and no content makes this run code.
    """
    return {entry.name: tensor for entry, tensor, _ in _read(container.read(data), max_bytes)}


def metadata_of(data: bytes) -> bytes:
    """The metadata of a container; ``CompressError`` as in :func:`unpack`."""
    return container.read(data).metadata


def describe(data: bytes, *, max_bytes: int = MAX_BYTES) -> list[Row]:
    """What became of each tensor of a container; ``CompressError`` as in :func:`unpack`."""
    rows = []
    for entry, tensor, symbols in _read(container.read(data), max_bytes):
        index = values = tables = 0.0
        encoding = "same"
        if coding := entry.coding:
            encoding = coding.encoding
            here, there = coding.run_bits(symbols)
            tables = coding.what_side_bits
            index = coding.where_side_bits + here
            values = there
            if coding.where:
                index += 8 * len(coding.where.low)
            raw = 8 * sum(len(part) for part in coding.what.raw)
            if coding.what.kind == "codebook":
                tables += raw
            else:
                values += raw
        row = Row(
            name=entry.name,
            dtype=str(tensor.dtype).removeprefix("torch."),
            shape=tuple(tensor.shape),
            encoding=encoding,
            original_bytes=tensor.numel() * tensor.element_size(),
            header_bytes=entry.header_bits / 8,
            table_bytes=tables / 8,
            index_bytes=index / 8,
            value_bytes=values / 8,
        )
        rows.append(row)
    return rows


@dataclass(frozen=True, eq=False)
class _Entry:
    """One tensor's description; ``same`` is the number of an earlier tensor of equal bits."""

    name: str
    form: Form
    shape: tuple[int, ...]
    same: int | None
    coding: Coding | None
    header_bits: float = 0.0


def _sections(named: Mapping[str, Tensor], coder: int, metadata: bytes) -> Sections:
    power_of_two = coder == 1
    entries: list[_Entry] = []
    seen: dict[tuple[Form, tuple[int, ...], bytes], int] = {}
    for number, (name, tensor) in enumerate(named.items()):
        words = elements.words_of(tensor, name)
        form = FORMS[FORM_OF[tensor.dtype]]
        shape = tuple(tensor.shape)
        same = number
        if len(words):
            same = seen.setdefault((form, shape, hashlib.sha256(words.data).digest()), number)
        if same < number:
            entries.append(_Entry(name, form, shape, same, None))
            continue
        coding = tensors.choose(words, shape, form, power_of_two=power_of_two)
        entries.append(_Entry(name, form, shape, None, coding))
    codings = [entry.coding for entry in entries if entry.coding]
    if len(entries) > _MAX_TENSORS or sum(coding.tables for coding in codings) > _MAX_TABLES:
        raise CompressError(
            f"{len(entries):,} tensors are too many for one container", hint="Pack them in parts."
        )
    raw = b"".join(part for coding in codings for part in coding.raw())
    runs = [run for coding in codings for run in coding.runs()]
    coded = [symbols for coding in codings for symbols in coding.coded()]
    piles: PileWriter | None = PileWriter()
    side = _describe(Writer(piles), entries, power_of_two)
    if piles and piles.count < _FEW:
        piles, side = None, _describe(Writer(), entries, power_of_two)
    symbols = np.concatenate([np.zeros(0, dtype=np.uint8), *coded])
    stream = (rans, prefix)[coder].encode(runs, symbols)
    return Sections(coder, side, piles.finish() if piles else b"", raw, stream, metadata)


def _describe(port: Writer, entries: Sequence[_Entry], power_of_two: bool) -> bytes:
    integer(port, _TENSORS, len(entries))
    before = ""
    for entry in entries:
        _transfer(port, entry, before, [], RawReader(b""), power_of_two=power_of_two)
        before = entry.name
    return port.finish()


def _read(sections: Sections, max_bytes: int) -> Iterator[tuple[_Entry, Tensor, Symbols]]:
    """Each tensor with its description and its part of the symbols."""
    piles = PileReader(sections.piles, sections.version) if sections.piles else None
    port = Reader(sections.side, piles)
    raw = RawReader(sections.raw)
    power_of_two = sections.coder == 1
    count = integer(port, _TENSORS)
    if count > _MAX_TENSORS:
        raise CompressError(f"declares {count:,} tensors")
    entries: list[_Entry] = []
    names: set[str] = set()
    left, tables = max_bytes, 0
    for _ in range(count):
        before = entries[-1].name if entries else ""
        entry = _transfer(
            port, None, before, entries, raw, power_of_two=power_of_two, max_bytes=left
        )
        left -= elements.elements_in(entry.shape) * entry.form.size * entry.form.words
        entries.append(entry)
        tables += entry.coding.tables if entry.coding else 0
        if tables > _MAX_TABLES:
            raise CompressError("declares too many tables")
        if entry.name in names:
            raise CompressError("names two tensors alike")
        names.add(entry.name)
    port.finish()
    raw.finish()
    if piles:
        piles.finish()
    runs_of = [entry.coding.runs() if entry.coding else [] for entry in entries]
    runs = [run for some in runs_of for run in some]
    symbols = (rans, prefix)[sections.coder].decode(runs, sections.symbols)
    at = 0
    made: list[Tensor] = []
    for entry, some in zip(entries, runs_of, strict=True):
        if entry.coding is None:
            assert entry.same is not None
            made.append(made[entry.same].clone())
            yield entry, made[-1], symbols[:0]
            continue
        end = at + sum(run.count for run in some)
        words = entry.coding.decode(symbols[at:end])
        made.append(elements.tensor_of(words, entry.form, entry.shape))
        yield entry, made[-1], symbols[at:end]
        at = end


def _transfer(
    port: Port,
    entry: _Entry | None,
    before: str,
    earlier: Sequence[_Entry],
    raw: RawReader,
    *,
    power_of_two: bool,
    max_bytes: int = MAX_BYTES,
) -> _Entry:
    """Write ``entry``, or read one where it is None; ``before`` is the name of the last one."""
    start = port.spent
    name = _transfer_name(port, entry.name if entry else None, before)
    number = choice(port, _FORM, 5, FORMS.index(entry.form) if entry else 0)
    dimensions = integer(port, _DIMENSIONS, len(entry.shape) if entry else 0)
    if number >= len(FORMS) or dimensions > _MAX_DIMENSIONS:
        raise CompressError("holds a dtype or shape that this version does not know")
    form = FORMS[number]
    shape = tuple(
        integer(port, _DIMENSION, entry.shape[place] if entry else 0) for place in range(dimensions)
    )
    if elements.elements_in(tuple(max(size, 1) for size in shape)) > _MAX_EXTENT:
        raise CompressError("holds a shape that is too large")
    words = elements.elements_in(shape) * form.words
    if entry is None and words * form.size > max_bytes:
        raise CompressError(
            f"declares a {str(form.dtype).removeprefix('torch.')} tensor of {words:,} elements, "
            "which is more than may be unpacked",
            hint="Give a larger limit if you trust the file.",
        )
    repeated = entry is not None and entry.same is not None
    if port.bit(_SAME << 8, int(repeated)):
        same = integer(port, _WHICH, entry.same or 0 if entry else 0)
        if entry:
            return entry
        if same >= len(earlier) or (earlier[same].form, earlier[same].shape) != (form, shape):
            raise CompressError("repeats a tensor that is not there")
        return _Entry(name, form, shape, same, None, port.spent - start)
    header_bits = port.spent - start
    given = entry.coding if entry else None
    coding = tensors.transfer(port, shape, words, form, given, raw=raw, power_of_two=power_of_two)
    return entry or _Entry(name, form, shape, None, coding, header_bits)


def _transfer_name(port: Port, name: str | None, before: str) -> str:
    """A name by how much of the last one it begins with, and its rest in UTF-8."""
    old, new = before.encode(), (name or "").encode()
    if len(new) > _MAX_NAME_BYTES:
        raise CompressError(f"has a name of more than {_MAX_NAME_BYTES} bytes", where=str(name))
    shared = 0
    while shared < min(len(old), len(new)) and old[shared] == new[shared]:
        shared += 1
    shared = integer(port, _PREFIX, shared)
    count = integer(port, _SUFFIX, len(new) - shared if name is not None else 0)
    if shared > len(old) or shared + count > _MAX_NAME_BYTES:
        raise CompressError("holds an impossible name")
    given = None if name is None else np.frombuffer(new[shared:], dtype=np.uint8)
    read = old[:shared] + port.symbols(_NAMES, count, given, 8).tobytes()
    try:
        return read.decode()
    except UnicodeDecodeError as error:
        raise CompressError("holds a name that is no UTF-8") from error
