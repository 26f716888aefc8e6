"""Packed files of version 1, which had no pairs of half bytes and one pile less, are still read."""

from __future__ import annotations

import base64

import pytest
import torch
from torch import Tensor

from compress import entropy
from compress.errors import CompressError
from compress.packing import container

WRITTEN_BY_VERSION_1 = {
    "rans": (
        "UFNIUAEAAEkABdQBBQXLopt7c7FzuytLO0OgL16zNIXA8h1SWLrKDTxU5G127VK0+a2BzW1EaWAZAyCTUu1y"
        "bp4oZGUfPeL5NqUVQzFMLgO2ILVxACHsAACAAEAApRJqvAEAAJ+K9PBp2OiJB1anO0tm6D6KNGN9cTyHcxyH"
        "c8ZIGsdxdsVTikW1xlkOagu92WazsQXZhSlWcZgY1h5HuSYIPIh85oteWHmw1ANDmpQWMgrh3ifzSroawTIv"
        "MKHZh+p60C/bq5EhI29Kmif+agA+mA5/2VxkGwxCYdL1R3TgYyn81IHTmvWPTCdplLMFto2dLD5dCp4CrT+a"
        "Ttst+neRX5WCzEmAPd7Px+zlYz4vT1xFzmZ+3HFCb3QPhkSKSt7CelpM3RQ0oZvd5k5KJmdyYXBoDa8GJUgj"
        "H3w="
    ),
    "huffman": (
        "UFNIUAEBAE4ABdIBBQXLopt7c7FzuytLO0OgL16zNIXA8h1SWL7ySKHH/a0x7c+NOFncYn/69ozcKm2WPi8s"
        "5SmmQcKwby3RNGsjp4EgizFGlEA3jBG64+SvCakAAIAAQADPASxuVlfGxuVlfGxuVlfGxuVlfGxvDnDnDnDn"
        "MccccccccQXjV+VZ4pF49cWhSbAiO6tdrCts5emfA7ArMQ9P5YfJ7qPY6XN/vt3KY/aLp/IZf9BizVA6B+Z7"
        "ljZbNtau0EwMkNvHWK5Ij15XtX5VnikXj1xaFJsCI7q12sK2zl6Z8DsCsxD0/lh8nuo9jpc3++3cpj9oun8h"
        "l/0GLNUDoH5nuWNls21q7QTAyQ28dYrkiPXle1flWeKRePXFoUmwIjurXawrbOXpnwOwKzEPQGdyYXBojPeV"
        "OyFiCW4="
    ),
    "piles": (
        "UFNIUAEAAB7dAwXUAQUFy5+vXrPrC+ZgeQJ+P8hOR4GN++1kJz2y4RWzPTOUaAAAFBwWWj7mMVR+iFpngibE"
        "CxzZI9M639mKpAZXUT4+AAAAIpE+PgAAAORffEYDAABxMhcfAAAA4v+smgYAAHdOTj4AAADXOCcfAAAA3bXR"
        "fAAAAFs2Hx8AAABVtdF8AAAAW77xfAAAAOOKEX0AAAB4Uz4+AAAAiy5OPgAAAF5uTj4AAACwv9YeAAAAcTIX"
        "HwAAAMaQLj4AAAATbT4+AAAAc0YXHwAAAHNGFx8AAAANKB8fAAAAUMLWHgAAAHa30XwAAACA5yQEAAAAOAQm"
        "BAAAAIDnJAQAAACA5yQEAAAAOAQmBAAAAFobJwQAAABaGycEAAAAfv4lBAAAAFobJwQAAAA4BCYEAAAAgOck"
        "BAAAAH7+JQQAAACA5yQEAAAAWhsnBAAAAFobJwQAAACA5yQEAAAAmGWLAgAAAIIYjAIAAACCGIwCAAAAghiM"
        "AgAAAD0MMQoAAACCGIwCAAAAmGWLAgAAAIIYjAIAAACYZYsCAAAAPQwxCgAAAJhliwIAAACCGIwCAAAAmGWL"
        "AgAAAIIYjAIAAAA9DDEKAAAAmGWLAgAAAIIYjAIAAACYZYsCAAAAghiMAgAAAH1wLgoAAABEH5MeAAAA0RdQ"
        "PQAAAEO+Xz0AAAAjyl89AAAAAACAAEAApRJqvAEAAJ+K9PBp2OiJB1anO0tm6D6KNGN9cTyHcxyHc8ZIGsdx"
        "dsVTikW1xlkOagu92WazsQXZhSlWcZgY1h5HuSYIPIh85oteWHmw1ANDmpQWMgrh3ifzSroawTIvMKHZh+p6"
        "0C/bq5EhI29Kmif+agA+mA5/2VxkGwxCYdL1R3TgYyn81IHTmvWPTCdplLMFto2dLD5dCp4CrT+aTtst+neR"
        "X5WCzEmAPd7Px+zlYz4vT1xFzmZ+3HFCb3QPhkSKSt7CelpM3RQ0oZvd5k5KJmdyYXBoYdaR8IFb/n0="
    ),
}


def packed_then() -> dict[str, Tensor]:
    n = torch.arange(240)
    weight = torch.where(n * 7 % 11 < 3, (n * 13 % 5 - 2).float() / 8, torch.zeros(()))
    return {
        "conv.weight": weight.reshape(12, 20),
        "conv.bias": torch.arange(6) / 4,
        "fc.weight": (n * n * 37 % 101 - 50).to(torch.int8).reshape(10, 24),
        "fc.tied": weight.reshape(12, 20),
    }


@pytest.mark.parametrize("kind", sorted(WRITTEN_BY_VERSION_1))
def test_files_of_version_1_are_read(kind: str) -> None:
    data = base64.b64decode(WRITTEN_BY_VERSION_1[kind])
    assert data[4] == 1
    assert bool(container.read(data).piles) == (kind == "piles")
    found, wanted = entropy.unpack(data), packed_then()
    assert list(found) == list(wanted)
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name
    assert entropy.metadata_of(data) == b"graph"


@pytest.mark.parametrize("kind", sorted(WRITTEN_BY_VERSION_1))
def test_a_damaged_file_of_version_1_is_noticed(kind: str) -> None:
    data = base64.b64decode(WRITTEN_BY_VERSION_1[kind])
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        with pytest.raises(CompressError):
            entropy.unpack(bytes(damaged))


def test_version_2_is_written() -> None:
    data = entropy.pack(packed_then())
    assert data[4] == container.VERSION == 2


@pytest.mark.parametrize("version", [0, 3])
def test_another_version_is_named(version: int) -> None:
    data = bytearray(entropy.pack(packed_then()))
    data[4] = version
    with pytest.raises(CompressError, match=f"format version {version}; .* reads 1 to 2"):
        entropy.unpack(bytes(data))
