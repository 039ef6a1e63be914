"""Ω in fewer bytes on disk: as bfloat16, or as 8-bit logarithms with a scale for each block.

Ω spans many orders of magnitude, and what counts is each entry's ratio to the others: codes with
equal steps would take all small entries for 0. Bytes for each parameter, and the largest relative
error of an entry:

| code | bytes | relative error | and otherwise |
|---|---|---|---|
| "exact" | 4 | 0 | |
| "bfloat16" | 2 | 2⁻⁹ = 0.2 % | entries below 2⁻¹²⁶, the smallest normal number, lose digits |
| "log8" | 1 + 4/128 | 3.4 % | entries below 2⁻²⁴ of their block's largest become that |

Zeros stay zeros under each, and other entries stay positive (but for bfloat16 below 2⁻¹³⁴). None
becomes infinite; in "log8" none grows beyond its block's largest, which itself is exact.
"""

from typing import Literal

import ml_dtypes
import numpy as np

Code = Literal["exact", "bfloat16", "log8"]
"""How Ω is stored."""

BLOCK = 128
"""Consecutive values under one scale, in "log8"."""
OCTAVES = 24
"""How far below its block's largest value an entry may lie, in powers of two, in "log8"."""

_STEPS = 254
"""From code 1, the smallest value but 0, to code 255, the block's largest."""
_AT_ONCE = 8192 * BLOCK
"""Values worked on together, so that what lies in between takes little memory."""
STORED_DTYPES = {"bfloat16": np.dtype(ml_dtypes.bfloat16), "log8": np.dtype(np.uint8)}


def encoded(importance: np.ndarray, code: Code) -> tuple[np.ndarray, np.ndarray | None]:
    """Ω of one leaf, float32, as stored: in its own shape, and the scales of its blocks if any."""
    match code:
        case "exact":
            return importance, None
        case "bfloat16":
            largest = np.float32(ml_dtypes.finfo(ml_dtypes.bfloat16).max)
            return np.minimum(importance, largest).astype(ml_dtypes.bfloat16), None
        case "log8":
            flat = importance.reshape(-1)
            parts = [_logarithms(part) for part in _parts(flat)]
            codes, scales = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
            return codes[: flat.size].reshape(importance.shape), scales


def decoded(stored: np.ndarray, scales: np.ndarray | None, code: Code) -> np.ndarray:
    """Ω of one leaf in float32, of what `encoded` returned."""
    if code != "log8" or scales is None:
        return stored.astype(np.float32)
    flat = stored.reshape(-1)
    importance = np.empty(flat.size, np.float32)
    for number, part in enumerate(_parts(flat)):
        start = number * _AT_ONCE
        own = scales[start // BLOCK :][: -(-part.size // BLOCK)]
        importance[start : start + part.size] = _powers(part, own)
    return importance.reshape(stored.shape)


def _parts(flat: np.ndarray) -> list[np.ndarray]:
    """`flat` in views of whole blocks, but for the last."""
    return [flat[start : start + _AT_ONCE] for start in range(0, max(flat.size, 1), _AT_ONCE)]


def _logarithms(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes, filled up to whole blocks, and scales."""
    blocks = np.pad(flat, (0, -flat.size % BLOCK)).reshape(-1, BLOCK)
    scales = blocks.max(axis=1, initial=0)
    # In float64, where the ratio of two float32 neither vanishes nor overflows.
    ratios = blocks / np.where(scales > 0, scales, 1).astype(np.float64)[:, None]
    octaves = np.log2(np.where(ratios > 0, ratios, 1))
    codes = np.clip(np.rint(255 + octaves * (_STEPS / OCTAVES)), 1, 255)
    return np.where(blocks > 0, codes, 0).astype(np.uint8).reshape(-1), scales


def _powers(codes: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """The values of codes under their scales."""
    factors = 2.0 ** ((np.arange(256) - 255) * (OCTAVES / _STEPS))
    factors[0] = 0
    blocks = np.pad(codes, (0, -codes.size % BLOCK)).reshape(-1, BLOCK)
    values = factors[blocks] * scales.astype(np.float64)[:, None]
    return values.astype(np.float32).reshape(-1)[: codes.size]
