"""What a bundle's README tells of a version's accuracy."""

from dataclasses import asdict

from model.paired import Outcome, Row
from schemas.storage import write_json
from tasks.bundle_accuracy import accuracy_of
from tasks.verdict import VERDICT, State

REGION_ROW = Row("region", "All", 12, 3, 2.0, 1.5, -0.5, -0.6, -0.4, 0.1, Outcome.PASSED)


def verdict(root, key, version, rows):
    told = {
        "key": key,
        "state": State.PASSED,
        "summary": "",
        "reasons": [],
        "model": "fpenet",
        "version": version,
        "champion": None,
        "snapshot_id": "snap",
        "faces": 12,
        "subjects": 3,
        "rows": [asdict(row) for row in rows],
        "rules": {},
        "rules_sha256": "",
    }
    write_json(root / key / VERDICT, told)


def test_the_errors_are_those_of_the_version_by_region(tmp_path):
    slice_row = Row("yaw", "frontal", 5, 2, 2.0, 1.0, -1.0, -1.1, -0.9, 0.1, Outcome.PASSED)
    empty = Row("region", "Ears", 0, 0, None, None, None, None, None, None, Outcome.SHOWN)
    verdict(tmp_path, "a", "6", [REGION_ROW])
    verdict(tmp_path, "b", "7", [])
    verdict(tmp_path, "c", "7", [REGION_ROW, empty, slice_row])
    found = accuracy_of(tmp_path, "fpenet", "7")
    assert (found.snapshot_id, found.faces, found.regions) == ("snap", 12, {"All": 1.5})


def test_a_version_that_was_never_measured_has_none(tmp_path):
    verdict(tmp_path, "b", "7", [])
    assert accuracy_of(tmp_path, "fpenet", "7") is None
    assert accuracy_of(tmp_path, "other", "7") is None
    assert accuracy_of(tmp_path / "nowhere", "fpenet", "7") is None
