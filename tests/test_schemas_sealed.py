import argparse
import copy
import hashlib
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

import schemas.sealed
from schemas.errors import SealedFileError
from schemas.sealed import (
    MAGIC,
    SCRYPT,
    Key,
    Kind,
    existing,
    is_sealed,
    kind_of,
    read_content,
    seal,
    sealed_path,
    unseal,
    write_sealed,
)

KEY, CONTENT = Key("correct horse battery"), bytes(range(256)) * 8


@pytest.fixture(autouse=True, scope="module")
def quick_derivation():
    """The cost of a key's derivation is not what these tests are about; a file says what it took."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schemas.sealed, "SCRYPT", {"n": 16, "r": 8, "p": 1})
        yield


def with_header(data: bytes, **changes) -> bytes:
    """The same file with another header and the digest that belongs to it: written on purpose, not damaged."""
    length = int.from_bytes(data[8:12], "big")
    header = json.loads(data[12 : 12 + length])
    header = {**header, **changes, "kdf": {**header["kdf"], **changes.get("kdf", {})}}
    text = json.dumps(header).encode()
    sealed = MAGIC + len(text).to_bytes(4, "big") + text + data[12 + length : -32]
    return sealed + hashlib.sha256(sealed).digest()


@given(st.binary(max_size=3000), st.text(min_size=1), st.sampled_from(Kind))
def test_what_is_sealed_comes_back_with_its_key_only(content, text, kind):
    data = seal(content, kind, Key(text))
    assert unseal(data, kind, Key(text), "here") == content
    with pytest.raises(SealedFileError, match="here: the key is wrong"):
        unseal(data, kind, Key(text + "x"), "here")


def test_nothing_of_content_or_key_is_readable_and_no_two_files_are_alike():
    first, second = (seal(CONTENT, Kind.TRAINABLE, KEY) for _ in range(2))
    assert CONTENT[:16] not in first and b"horse" not in first
    assert first[-200:-100] != second[-200:-100]
    one, other = (json.loads(data[12 : 12 + int.from_bytes(data[8:12], "big")]) for data in (first, second))
    assert one["nonce"] != other["nonce"] and one["kdf"]["salt"] != other["kdf"]["salt"]


def test_a_key_costs_what_owasp_asks_for_at_least():
    """Its settings of scrypt, from the "Password Storage Cheat Sheet": less of one for more of another."""
    smallest = [(2**17, 8, 1), (2**16, 8, 2), (2**15, 8, 3), (2**14, 8, 5), (2**13, 8, 10)]
    assert tuple(SCRYPT.values()) in smallest


def test_a_changed_byte_anywhere_is_damage_not_a_wrong_key():
    data = seal(b"weights", Kind.TRAINABLE, KEY)
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 0x20
        with pytest.raises(SealedFileError, match="model: damaged"):
            unseal(bytes(changed), Kind.TRAINABLE, KEY, "model")


@pytest.mark.parametrize("length", [0, 5, 11, 20, 100, -1])
def test_a_truncated_file_is_damage(length):
    with pytest.raises(SealedFileError, match="damaged"):
        unseal(seal(CONTENT, Kind.TRAINABLE, KEY)[:length], Kind.TRAINABLE, KEY, "model")


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "other"},
        {"cipher": "none"},
        {"nonce": "00"},
        {"nonce": "zz"},
        {"kdf": {"name": "none"}},
        {"kdf": {"n": 2**30}},
        {"kdf": {"n": 17}},
        {"kdf": {"n": 1}},
        {"note": "x" * 4096},
        {"kdf": {"r": 0}},
        {"kdf": {"p": True}},
        {"kdf": {"salt": 5}},
    ],
)
def test_a_header_that_asks_for_something_else_is_refused(changes):
    """Also one that would take all memory: the digest is no secret, so anyone can write such a file."""
    with pytest.raises(SealedFileError, match="damaged"):
        unseal(with_header(seal(CONTENT, Kind.TRAINABLE, KEY), **changes), Kind.TRAINABLE, KEY, "model")


def test_a_header_changed_on_purpose_does_not_open():
    data = with_header(seal(CONTENT, Kind.TRAINABLE, KEY), kind="deployable")
    with pytest.raises(SealedFileError, match="the key is wrong"):
        unseal(data, Kind.DEPLOYABLE, KEY, "model")


def test_a_newer_version_says_so():
    with pytest.raises(SealedFileError, match="newer"):
        unseal(with_header(seal(CONTENT, Kind.TRAINABLE, KEY), version=2), Kind.TRAINABLE, KEY, "model")


def test_kinds_are_told_apart_before_the_key_is_asked_for():
    for kind, needed, words in (
        (Kind.TRAINABLE, Kind.DEPLOYABLE, r"holds a trainable model .* needed is a deployable model"),
        (Kind.DEPLOYABLE, Kind.TRAINABLE, r"holds a deployable model .* needed is a trainable model"),
        (Kind.CHECKPOINT, Kind.TRAINABLE, r"holds a training's checkpoint; needed is a trainable model"),
    ):
        with pytest.raises(SealedFileError, match=words):
            unseal(seal(CONTENT, kind, KEY), needed, None, "model")


@pytest.mark.parametrize("key", [None, Key("")])
def test_without_a_key_it_says_how_to_give_one(key):
    with pytest.raises(SealedFileError, match=r"model: encrypted; give the key .* FPENET_KEY or -k"):
        unseal(seal(CONTENT, Kind.TRAINABLE, KEY), Kind.TRAINABLE, key, "model")


def test_files_are_known_by_their_content(tmp_path):
    plain, path = tmp_path / "model.onnx", tmp_path / "renamed.bin"
    plain.write_bytes(CONTENT)
    write_sealed(path, CONTENT, Kind.DEPLOYABLE, KEY)
    assert (is_sealed(plain), is_sealed(path), is_sealed(tmp_path / "none")) == (False, True, False)
    assert kind_of(path) is Kind.DEPLOYABLE
    assert read_content(plain, Kind.DEPLOYABLE, None) == read_content(path, Kind.DEPLOYABLE, KEY) == CONTENT
    assert sorted(tmp_path.iterdir()) == [plain, path]
    with pytest.raises(SealedFileError, match=r"renamed\.bin: encrypted"):
        read_content(path, Kind.DEPLOYABLE, None)


def test_a_file_opens_whatever_a_key_costs_by_then(monkeypatch):
    data = seal(CONTENT, Kind.TRAINABLE, KEY)
    monkeypatch.setattr(schemas.sealed, "SCRYPT", {"n": 32, "r": 4, "p": 2})
    assert unseal(data, Kind.TRAINABLE, KEY, "model") == CONTENT


def test_a_file_that_is_only_called_sealed_is_damaged(tmp_path):
    path = tmp_path / "model.onnx.sealed"
    path.write_bytes(b"something else")
    assert is_sealed(path)
    for read in (lambda: kind_of(path), lambda: read_content(path, Kind.DEPLOYABLE, KEY)):
        with pytest.raises(SealedFileError, match=r"model.onnx.sealed: damaged"):
            read()


def test_the_sealed_name_is_taken_with_a_key_or_where_only_it_is_there(tmp_path):
    plain, sealed = tmp_path / "model.keras", tmp_path / "model.keras.sealed"
    assert (sealed_path(plain, KEY), sealed_path(plain, None), sealed_path(plain, Key(""))) == (sealed, plain, plain)
    assert existing(plain) == plain
    sealed.touch()
    assert existing(plain) == sealed
    plain.touch()
    assert existing(plain) == plain


def test_a_key_is_shown_and_written_nowhere():
    shown = f"{KEY} {KEY!r} {[KEY]} {argparse.Namespace(key=KEY)}"
    assert "horse" not in shown and "***" in shown
    for write in (pickle.dumps, copy.deepcopy, copy.copy):
        with pytest.raises(TypeError, match="not to be written"):
            write(KEY)


def test_a_key_typed_on_another_system_is_the_same():
    composed, decomposed = Key("schl\u00fcssel"), Key("schlu\u0308ssel")
    assert unseal(seal(CONTENT, Kind.TRAINABLE, composed), Kind.TRAINABLE, decomposed, "model") == CONTENT
    surrogates = Key(b"\xff\xfe".decode("utf-8", "surrogateescape"))
    assert unseal(seal(CONTENT, Kind.TRAINABLE, surrogates), Kind.TRAINABLE, surrogates, "model") == CONTENT
