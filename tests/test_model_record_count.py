import pytest

from model.record_count import count_records
from model.tfrecords import write_records


@pytest.mark.parametrize("sizes", [[], [4], [5, 70_000, 4, 12]])
def test_records_are_counted_whatever_their_length(tmp_path, sizes):
    files = [tmp_path / "a.tfrecords", tmp_path / "b.tfrecords"]
    for file in files:
        write_records(file, (b"x" * size for size in sizes))
    assert count_records(files) == 2 * len(sizes)


def test_a_damaged_length_ends_the_count(tmp_path):
    file = tmp_path / "a.tfrecords"
    write_records(file, [b"record"] * 3)
    file.write_bytes(b"\xff" * 8 + file.read_bytes()[8:])
    assert count_records([file]) == 1
