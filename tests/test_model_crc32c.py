"""CRC-32C of many messages at once: the published values, and those of the bit-by-bit definition."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.crc32c import crc32c

PUBLISHED = {  # RFC 3720, appendix B.4, and the usual check value
    bytes(32): 0x8A9136AA,
    b"\xff" * 32: 0x62A8AB43,
    bytes(range(32)): 0x46DD794E,
    bytes(range(31, -1, -1)): 0x113FDB5C,
    b"123456789": 0xE3069283,
}


def bit_by_bit(message: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in message:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_published_values():
    assert crc32c(list(PUBLISHED)).tolist() == list(PUBLISHED.values())


@settings(max_examples=20)
@given(st.lists(st.binary(min_size=4, max_size=800), max_size=6))
def test_definition(messages):
    assert crc32c(messages).tolist() == [bit_by_bit(message) for message in messages]


def test_shorter_messages_are_refused():
    with pytest.raises(ValueError, match="four bytes"):
        crc32c([b"1234", b"123"])
