"""Device outputs against references: numbers by hand, and what is no number."""

from __future__ import annotations

import numpy as np
import pytest

from deploy.bench.outputs import expected_bytes, max_abs_diff
from deploy.types import TensorSpec


def spec(dtype: str, *shape: int) -> TensorSpec:
    return TensorSpec(name="y", dtype=dtype, shape=shape)


def test_largest_difference_over_all_outputs() -> None:
    specs = [spec("float32", 2), spec("int64", 1, 2)]
    raw = np.array([1.0, 2.0], "<f4").tobytes() + np.array([5, -7], "<i8").tobytes()
    same = [np.array([1.0, 2.0], "f4"), np.array([[5, -7]])]
    assert expected_bytes(specs) == len(raw) == 24
    assert max_abs_diff(raw, specs, same) == 0.0
    assert max_abs_diff(raw, specs, raw) == 0.0
    assert max_abs_diff(raw, specs, [same[0] + 0.5, np.array([[5, -4]])]) == 3.0


def test_halves_of_both_kinds() -> None:
    assert max_abs_diff(np.array([1.5], "<f2").tobytes(), [spec("float16", 1)], [np.ones(1)]) == 0.5
    # 0x3fc0 is bfloat16 for 1.5.
    assert max_abs_diff(b"\xc0\x3f", [spec("bfloat16", 1)], [np.ones(1)]) == 0.5


def test_unsigned_and_bool_do_not_wrap() -> None:
    assert max_abs_diff(bytes([0]), [spec("uint8", 1)], [np.array([255], np.uint8)]) == 255.0
    assert max_abs_diff(bytes([1]), [spec("bool", 1)], [np.array([False])]) == 1.0


def test_not_a_number_on_both_sides_is_equal_and_on_one_side_is_none() -> None:
    specs = [spec("float32", 2)]
    nan = np.array([np.nan, np.inf], "<f4")
    assert max_abs_diff(nan.tobytes(), specs, [nan]) == 0.0
    for other in (np.array([0.0, np.inf]), np.array([np.nan, -np.inf]), np.array([np.nan, 1.0])):
        with pytest.raises(ValueError, match="not finite"):
            max_abs_diff(nan.tobytes(), specs, [other])


def test_wrong_sizes_say_so() -> None:
    specs = [spec("float32", 2)]
    with pytest.raises(ValueError, match="the device wrote 4 bytes"):
        max_abs_diff(b"1234", specs, b"12345678")
    with pytest.raises(ValueError, match="the reference outputs have 4 bytes"):
        max_abs_diff(b"12345678", specs, b"1234")
    with pytest.raises(ValueError, match="shapes"):
        max_abs_diff(b"12345678", specs, [np.zeros(3)])
    with pytest.raises(ValueError, match="complex64"):
        expected_bytes([spec("complex64", 1)])


def test_scalars_and_empty_outputs() -> None:
    assert max_abs_diff(np.float32(3).tobytes(), [spec("float32")], [np.array(1.0)]) == 2.0
    assert max_abs_diff(b"", [spec("float32", 0)], [np.zeros(0)]) == 0.0
