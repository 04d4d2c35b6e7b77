"""Checksums and signatures: whatever was changed is found and named."""

import gzip
import io
import os
import subprocess
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy import stages
from deploy.bundle.archive import TIME, read_bundle, write_bundle
from deploy.bundle.bundle import verify_bundle
from deploy.bundle.signing import (
    KEY_VARIABLE,
    SIGNATURE,
    SUMS,
    checksums,
    fingerprint,
    make_keys,
    read_public_key,
    signing_key_from_environment,
    verify,
    with_checksums,
)
from flows.entry.commands import bundle
from schemas.errors import InputError, SignatureError, StorageError
from tests.killed import killed_at_fsync

FILES = {"README.md": b"what it is", "engine/engine.plan": bytes(range(256)), "engine/reproduce.sh": b"#!/bin/sh\n"}
names = st.sampled_from(sorted(FILES))
_MAKE_KEYS = """
import sys
from pathlib import Path
from deploy.bundle.signing import make_keys
make_keys(Path(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Private and public half of a key, and the public half of another."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("ours", "other"):
        make_keys(folder / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY_VARIABLE, str(folder / "ours"))
        private = signing_key_from_environment()
    return private, read_public_key(folder / "ours.pub"), read_public_key(folder / "other.pub")


@pytest.fixture(scope="module")
def signed(keys):
    return with_checksums(FILES, keys[0])


def test_what_a_killed_run_has_left_gets_into_no_bundle(keys, signed, tmp_path):
    """In a container the next run has the same process id."""
    left = tmp_path / f".bundle.{os.getpid()}.tmp"
    left.mkdir()
    (left / "removed-since.md").write_bytes(b"")
    write_bundle(tmp_path / "bundle", "fpenet-x", signed)
    assert verify(read_bundle(tmp_path / "bundle"), public_key=keys[1]).files == 3


def test_a_whole_bundle_verifies_and_names_the_signer(keys, signed):
    found = verify(signed, public_key=keys[1])
    assert (found.files, found.fingerprint) == (3, fingerprint(keys[1]))
    assert signed == with_checksums(FILES, keys[0])


@given(name=names, at=st.integers(0, 9), data=st.data())
def test_any_change_of_a_file_is_found_and_named(keys, signed, name, at, data):
    content = bytearray(signed[name])
    content[at % len(content)] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SignatureError, match=f"{name} is another file$"):
        verify({**signed, name: bytes(content)}, public_key=keys[1])


def test_missing_and_added_files_are_named_together(keys, signed):
    files = {name: content for name, content in signed.items() if name != "engine/engine.plan"}
    with pytest.raises(SignatureError, match=r"made: engine/engine.plan is missing; engine/run.sh was added"):
        verify({**files, "engine/run.sh": b"rm"}, public_key=keys[1])


def test_rewritten_checksums_do_not_fit_the_signature(keys, signed):
    forged = with_checksums({**FILES, "engine/engine.plan": b"mine"}, None)
    with pytest.raises(SignatureError, match=f"{SIGNATURE} does not fit {SUMS}"):
        verify({**forged, SIGNATURE: signed[SIGNATURE]}, public_key=keys[1])
    with pytest.raises(SignatureError, match="signed by another key"):
        verify(signed, public_key=keys[2])


def test_unsigned_is_refused_unless_that_is_fine(keys, signed):
    unsigned = with_checksums(FILES, None)
    with pytest.raises(SignatureError, match=r"unsigned: nobody vouches for it; --unsigned-ok"):
        verify(unsigned)
    with pytest.raises(SignatureError, match=f"unsigned: there is no {SIGNATURE}"):
        verify(unsigned, public_key=keys[1], unsigned_ok=True)
    with pytest.raises(SignatureError, match="signed, but there is no key to check it with"):
        verify(signed)
    assert verify(unsigned, unsigned_ok=True).fingerprint == ""
    with pytest.raises(SignatureError, match=r"README.md is another file"):
        verify({**unsigned, "README.md": b"other"}, unsigned_ok=True)


def test_a_file_has_one_checksum():
    sums = checksums({"README.md": b"one"}) + checksums({"README.md": b"other"})
    with pytest.raises(SignatureError, match=f"{SUMS}:2: not a line of checksums"):
        verify({"README.md": b"other", SUMS: sums}, unsigned_ok=True)


@pytest.mark.parametrize("sums", [b"nonsense\n", b"ab  README.md\n", b"\xff\xfe\n"])
def test_checksums_that_are_none_are_refused(sums):
    with pytest.raises(SignatureError, match=f"{SUMS}:1: not a line of checksums"):
        verify({SUMS: sums}, unsigned_ok=True)
    with pytest.raises(SignatureError, match=f"there is no {SUMS}: not a bundle"):
        verify(FILES, unsigned_ok=True)


@pytest.mark.parametrize("place", ["bundle", "bundle.tar.gz"])
def test_folders_and_archives_read_back_what_was_written(place, keys, signed, tmp_path):
    write_bundle(tmp_path / place, "fpenet-x", signed)
    assert read_bundle(tmp_path / place) == signed
    assert [path.name for path in tmp_path.iterdir()] == [place]
    (tmp_path / "ours.pub").write_bytes(_pem(keys[1]))
    assert verify_bundle(tmp_path / place, public_key=tmp_path / "ours.pub").files == 3
    write_bundle(tmp_path / place, "fpenet-x", signed)  # the same again is fine


def test_an_archive_has_the_same_bytes_each_time_and_nothing_of_this_machine(signed, tmp_path):
    for name, files in (("one.tar.gz", signed), ("two.tar.gz", dict(reversed(signed.items())))):
        write_bundle(tmp_path / name, "fpenet-x", files)
    written = (tmp_path / "one.tar.gz").read_bytes()
    assert (tmp_path / "two.tar.gz").read_bytes() == written
    assert written[4:8] == bytes(4), "when it was compressed"
    listed = subprocess.run(["tar", "-tvzf", tmp_path / "one.tar.gz"], capture_output=True, text=True, check=True)
    assert "-rwxr-xr-x 0/0" in listed.stdout
    assert "fpenet-x/engine/reproduce.sh" in listed.stdout


def test_an_archive_with_two_folders_or_none_or_a_file_twice_is_no_bundle(signed, tmp_path):
    for folders in (("a", "b"), (), ("a", "a")):
        members = [(tarfile.TarInfo(f"{folder}/{name}"), signed[name]) for folder in folders for name in signed]
        path = _archive(tmp_path / "two.tar.gz", members)
        with pytest.raises(SignatureError, match="does not hold one folder, or holds a file twice"):
            verify_bundle(path, unsigned_ok=True)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("//README.md", {}, "a path that leads out"),
        ("/fpenet-x/README.md", {}, "a path that leads out"),
        ("fpenet-x/../../README.md", {}, "a path that leads out"),
        ("fpenet-x/./README.md", {}, "a path that leads out"),
        ("README.md", {}, "a path that leads out"),
        ("../../evil", {"type": tarfile.DIRTYPE, "mode": 0o777}, "a path that leads out"),
        ("/evil", {"type": tarfile.DIRTYPE, "mode": 0o755}, "a path that leads out"),
        ("fpenet-x/evil", {"type": tarfile.DIRTYPE, "mode": 0o777}, "a link, a folder or a special file"),
        ("fpenet-x/README.md", {"type": tarfile.LNKTYPE, "linkname": "fpenet-x/SHA256SUMS"}, "a link"),
        ("fpenet-x/null", {"type": tarfile.CHRTYPE}, "a link, a folder or a special file"),
    ],
)
def test_an_archive_with_what_no_bundle_has_is_refused_for_that(name, change, message, keys, signed, tmp_path):
    """Signature and checksums are right: whatever unpacks it would be led astray by the rest."""
    members = [(tarfile.TarInfo(f"fpenet-x/{inner}"), content) for inner, content in signed.items()]
    members = [(member, content) for member, content in members if not name.endswith(member.name[9:])]
    bad = tarfile.TarInfo(name)
    for key, value in change.items():
        setattr(bad, key, value)
    path = _archive(tmp_path / "bundle.tar.gz", [*members, (bad, b"" if "type" in change else signed["README.md"])])
    (tmp_path / "ours.pub").write_bytes(_pem(keys[1]))
    with pytest.raises(SignatureError, match=message) as refused:
        verify_bundle(path, public_key=tmp_path / "ours.pub")
    assert str(refused.value).startswith(f"{path}: {name}: ")


def _zero_block(script: bytes, engine: bytes) -> bytes:
    return bytes(tarfile.BLOCKSIZE) + script + engine


def _junk_in_a_header(script: bytes, engine: bytes) -> bytes:
    """A device number that is none, and a checksum that is right: `tarfile` takes it for the end."""
    header = bytearray(script[: tarfile.BLOCKSIZE])
    header[329:336] = b"notanum"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + script[tarfile.BLOCKSIZE :] + engine


@pytest.mark.parametrize("unseen", [_zero_block, _junk_in_a_header])
def test_what_only_other_readers_of_an_archive_see_is_not_vouched_for(unseen, keys, signed, tmp_path):
    write_bundle(tmp_path / "bundle.tar.gz", "fpenet-x", signed)
    members = gzip.decompress((tmp_path / "bundle.tar.gz").read_bytes()).rstrip(b"\0")
    members += bytes(-len(members) % tarfile.BLOCKSIZE)
    names = ("engine/reproduce.sh", "engine/engine.plan")
    forged = unseen(*(tarfile.TarInfo(f"fpenet-x/{name}").tobuf(tarfile.USTAR_FORMAT) for name in names))
    path = tmp_path / "forged.tar.gz"
    path.write_bytes(gzip.compress(members + forged + bytes(2 * tarfile.BLOCKSIZE)))
    (tmp_path / "ours.pub").write_bytes(_pem(keys[1]))
    with tarfile.open(path) as archive:
        assert len(archive.getmembers()) == len(signed)
    with pytest.raises(SignatureError, match=r"more than its files: .* get the archive from the signer again"):
        verify_bundle(path, public_key=tmp_path / "ours.pub")


@pytest.mark.parametrize("size", [-512, 2**87], ids=["negative", "beyond any disk"])
def test_an_archive_whose_sizes_are_none_is_refused(size, signed, tmp_path):
    """A negative size leads readers back to the same member for ever."""
    write_bundle(tmp_path / "bundle.tar.gz", "fpenet-x", signed)
    members = gzip.decompress((tmp_path / "bundle.tar.gz").read_bytes()).rstrip(b"\0")
    members += bytes(-len(members) % tarfile.BLOCKSIZE)
    header = bytearray(tarfile.TarInfo("fpenet-x/more").tobuf(tarfile.USTAR_FORMAT))
    header[124:136] = size.to_bytes(12, "big", signed=True) if size < 0 else b"\x80" + size.to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path = tmp_path / "forged.tar.gz"
    path.write_bytes(gzip.compress(members + bytes(header) + bytes(2 * tarfile.BLOCKSIZE)))
    with pytest.raises(SignatureError, match=f"^{path}: "):
        read_bundle(path)


def test_an_archive_of_headers_about_headers_is_refused(tmp_path):
    about = tarfile.TarInfo("about")
    about.type = tarfile.XHDTYPE
    path = tmp_path / "forged.tar.gz"
    path.write_bytes(gzip.compress(about.tobuf(tarfile.USTAR_FORMAT) * 5000 + bytes(2 * tarfile.BLOCKSIZE)))
    with pytest.raises(SignatureError, match=f"^{path}: not a whole archive"):
        read_bundle(path)


def test_an_archive_with_a_map_of_holes_that_is_none_is_refused(tmp_path):
    member = tarfile.TarInfo("fpenet-x/README.md")
    member.pax_headers = {"GNU.sparse.map": "nonsense"}
    path = tmp_path / "forged.tar.gz"
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(member)
    with pytest.raises(SignatureError, match=f"^{path}: not a whole archive"):
        read_bundle(path)


@pytest.mark.parametrize("mode", [0o6777, 0o666])
def test_an_archive_with_other_modes_is_refused(mode, signed, tmp_path):
    members = [(tarfile.TarInfo(f"fpenet-x/{name}"), content) for name, content in sorted(signed.items())]
    for member, _ in members:
        member.mtime, member.mode = TIME, 0o755 if member.name.endswith(".sh") else 0o644
    path = _archive(tmp_path / "bundle.tar.gz", members)
    assert read_bundle(path) == signed
    members[0][0].mode = mode
    with pytest.raises(SignatureError, match="other modes, or more than its files"):
        read_bundle(_archive(path, members))


def _archive(path, members):
    """Of members and their contents, as `write_bundle` would write it."""
    with tarfile.open(path, "w:gz", format=tarfile.USTAR_FORMAT) as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_an_empty_folder_is_filled(signed, tmp_path):
    (tmp_path / "bundle").mkdir()
    write_bundle(tmp_path / "bundle", "fpenet-x", signed)
    assert read_bundle(tmp_path / "bundle") == signed
    assert os.access(tmp_path / "bundle/engine/reproduce.sh", os.X_OK)


def test_a_folder_that_can_t_be_written_whole_is_not_begun(tmp_path):
    with pytest.raises(StorageError, match="can't be made"):
        write_bundle(tmp_path / "bundle", "fpenet-x", {"engine": b"", "engine/engine.plan": b""})
    assert not list(tmp_path.iterdir())


def test_another_bundle_of_the_same_files_is_left_alone(signed, tmp_path):
    write_bundle(tmp_path / "bundle", "fpenet-x", signed)
    with pytest.raises(InputError, match="is there and is not this bundle"):
        write_bundle(tmp_path / "bundle", "fpenet-x", signed | {"README.md": b"another"})
    assert read_bundle(tmp_path / "bundle") == signed


def test_a_folder_with_something_else_is_left_alone(signed, tmp_path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "thesis.txt").write_text("years")
    with pytest.raises(InputError, match="is there and is not this bundle"):
        write_bundle(tmp_path / "bundle", "fpenet-x", signed)
    assert (tmp_path / "bundle" / "thesis.txt").read_text() == "years"


def test_links_and_cut_off_archives_are_no_bundles(signed, tmp_path):
    write_bundle(tmp_path / "bundle", "fpenet-x", signed)
    (tmp_path / "bundle" / "engine" / "more").symlink_to("/etc")
    with pytest.raises(SignatureError, match=f"^{tmp_path / 'bundle'}: engine/more: a link"):
        verify_bundle(tmp_path / "bundle", unsigned_ok=True)
    (tmp_path / "bundle" / "engine" / "more").unlink()
    os.mkfifo(tmp_path / "bundle" / "engine" / "pipe")
    with pytest.raises(SignatureError, match="engine/pipe: a link or a special file"):
        verify_bundle(tmp_path / "bundle", unsigned_ok=True)
    write_bundle(tmp_path / "whole.tar.gz", "fpenet-x", signed)
    whole = (tmp_path / "whole.tar.gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SignatureError, match=rf"^{tmp_path}/cut.tar.gz: not a whole archive"):
        verify_bundle(tmp_path / "cut.tar.gz", unsigned_ok=True)
    for at in (10, len(whole) // 2):  # where the compressed data begin, and in their middle
        (tmp_path / "damaged.tar.gz").write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
        with pytest.raises(SignatureError):
            verify_bundle(tmp_path / "damaged.tar.gz", unsigned_ok=True)
    (tmp_path / "whole.zip").write_bytes(whole)
    for name in ("nowhere", "whole.zip"):
        with pytest.raises(InputError, match=r"there is no bundle: neither a folder nor a file \*.tar.gz or \*.tgz"):
            verify_bundle(tmp_path / name, unsigned_ok=True)


def test_keys_are_the_owners_and_never_overwritten(tmp_path):
    made = make_keys(tmp_path / "signing.pem")
    assert (tmp_path / "signing.pem").stat().st_mode & 0o777 == 0o600
    assert made == fingerprint(read_public_key(tmp_path / "signing.pem.pub"))
    with pytest.raises(InputError, match=r"signing.pem: is there already"):
        make_keys(tmp_path / "signing.pem")


def test_a_key_that_was_cut_off_leaves_no_private_half_without_its_public_one(tmp_path):
    key = tmp_path / "key"
    assert killed_at_fsync(3, _MAKE_KEYS, key)
    assert [path.name for path in tmp_path.glob("[!.]*")] == ["key.pub"]
    with pytest.raises(InputError, match=r"key.pub: is there already .* remove it if it was left by a command"):
        make_keys(key)
    (tmp_path / "key.pub").unlink()
    assert make_keys(key) == fingerprint(read_public_key(tmp_path / "key.pub"))


def test_places_where_nothing_can_be_written_are_refused_in_words(signed, tmp_path):
    (tmp_path / "folder.tar.gz").mkdir()
    with pytest.raises(StorageError, match=r"folder.tar.gz: can't be written: Is a directory"):
        write_bundle(tmp_path / "folder.tar.gz", "fpenet-x", signed)
    (tmp_path / "file").write_bytes(b"")
    for inner in ("k", "deeper/k"):
        with pytest.raises(StorageError, match=r"can't be made: (File exists|Not a directory)"):
            make_keys(tmp_path / "file" / inner)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.tar.gz"]


def test_a_key_that_is_none_is_explained(tmp_path, monkeypatch):
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    assert signing_key_from_environment() is None
    make_keys(tmp_path / "signing.pem")
    for wrong, message in (("nowhere", "can't be read"), ("signing.pem.pub", "keygen` makes one")):
        monkeypatch.setenv(KEY_VARIABLE, str(tmp_path / wrong))
        with pytest.raises(InputError, match=message):
            signing_key_from_environment()
    with pytest.raises(InputError, match="not a public key"):
        read_public_key(tmp_path / "signing.pem")


def test_openssl_and_sha256sum_agree(keys, signed, tmp_path):
    """The lines that a bundle's README gives to those without this project."""
    write_bundle(tmp_path / "bundle", "fpenet-x", signed)
    (tmp_path / "ours.pub").write_bytes(_pem(keys[1]))
    (tmp_path / "other.pub").write_bytes(_pem(keys[2]))
    line = (
        f"openssl pkeyutl -verify -pubin -inkey ../%s -rawin -in {SUMS} -sigfile {SIGNATURE} && sha256sum -c {SUMS}"
    )
    done = [
        subprocess.run(line % key, shell=True, cwd=tmp_path / "bundle", capture_output=True, check=False).returncode
        for key in ("ours.pub", "other.pub")
    ]
    assert done[0] == 0
    assert done[1] != 0


def _pem(key) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def test_the_command_knows_the_stages_that_there_are():
    """It lists them itself, so that its help needs none of the heavy imports."""
    assert set(bundle.STAGES) == set(stages.STAGES)
