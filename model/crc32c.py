"""CRC-32C (RFC 3720, appendix B.4) of many messages at once, with NumPy: TFRecord files carry it.

A CRC is linear over XOR, and a message may have zeros before it if the start value is XORed into its first bytes. So
messages are laid right-aligned into rows of the same width, all rows advance together, four bytes at a step, and the
CRCs of a message's rows are joined in the end.

Legend: M messages, R rows, K words of a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

_POLYNOMIAL = 0x82F63B78  # reflected
_ROW = 256  # bytes
_ONES = 0xFFFFFFFF


def crc32c(messages: Sequence[bytes]) -> np.ndarray:
    """CRC-32C of every message, uint32 of shape (M,).

    Raises:
        ValueError: a message is shorter than four bytes.
    """
    lengths_M = np.fromiter(map(len, messages), np.int64, len(messages))
    if (lengths_M < 4).any():
        raise ValueError("a message needs four bytes")
    rows_M = -(-lengths_M // _ROW)
    ends_M = np.cumsum(rows_M)
    crcs_R = _of_rows(_in_rows(messages, ends_M * _ROW, lengths_M))
    return _joined(crcs_R, ends_M - rows_M, rows_M) ^ np.uint32(_ONES)


def _in_rows(messages: Sequence[bytes], ends_M: np.ndarray, lengths_M: np.ndarray) -> np.ndarray:
    """The messages right-aligned in zeroed rows, the start value XORed in: (R, K) little-endian uint32."""
    data = np.zeros(ends_M[-1] if len(ends_M) else 0, np.uint8)
    view = memoryview(data)
    starts_M = ends_M - lengths_M
    for message, start, end in zip(messages, starts_M.tolist(), ends_M.tolist(), strict=True):
        view[start:end] = message
    data[starts_M[:, None] + np.arange(4)] ^= 0xFF
    return data.view("<u4").reshape(-1, _ROW // 4)


def _of_rows(words_RK: np.ndarray) -> np.ndarray:
    """CRC of every row, from 0 and without the final XOR."""
    crcs_R = np.zeros(len(words_RK), np.uint32)
    for words_R in np.ascontiguousarray(words_RK.T):
        crcs_R = _advanced(crcs_R ^ words_R, 4)
    return crcs_R


def _joined(crcs_R: np.ndarray, firsts_M: np.ndarray, rows_M: np.ndarray) -> np.ndarray:
    """CRC of every message out of those of its rows."""
    crcs_M = np.zeros(len(rows_M), np.uint32)
    for row in range(rows_M.max(initial=0)):
        longer = np.flatnonzero(rows_M > row)
        crcs_M[longer] = _advanced(crcs_M[longer], _ROW) ^ crcs_R[firsts_M[longer] + row]
    return crcs_M


def _advanced(crcs: np.ndarray, zeros: int) -> np.ndarray:
    """The CRCs after as many more zero bytes."""
    low, high = _tables(zeros)
    return low[crcs & 0xFFFF] ^ high[crcs >> 16]


@lru_cache
def _tables(zeros: int) -> tuple[np.ndarray, np.ndarray]:
    """What the lower and the upper 16 bits of a CRC become after `zeros` zero bytes."""
    images = 1 << np.arange(32, dtype=np.uint32)  # of every single bit
    for _ in range(8 * zeros):
        images = (images >> 1) ^ np.where(images & 1, np.uint32(_POLYNOMIAL), np.uint32(0))
    return _combinations(images[:16]), _combinations(images[16:])


def _combinations(images: np.ndarray) -> np.ndarray:
    """XOR of the images of the set bits, for every 16-bit number."""
    table = np.zeros(1, np.uint32)
    for image in images:
        table = np.concatenate([table, table ^ image])
    return table
