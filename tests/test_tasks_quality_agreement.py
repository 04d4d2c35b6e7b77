from dataclasses import replace

import numpy as np
import pytest

from schemas.config import QualitySettings
from schemas.raw import RawRecord, write_raw
from schemas.sources import LabelStudioExportSource, LabelStudioSource
from tasks.quality.agreement import report_agreement
from tasks.quality.compare import annotator_prefixes, compare, record_of, reviewed_records
from tasks.quality.disputes import find_disputes
from tests.annotator_views import some_face, some_views

SETTINGS = QualitySettings()
POINTS = some_views(faces=1, num_keypoints=80)[0].points_AK2[0]


def pair(task, *, moved=(0.0, 0.0), points=range(80), names=("1", "2"), flags=None, **changes):
    """Two annotations of a task; the second has `points` moved."""
    other = POINTS.copy()
    other[list(points)] += moved
    second = changes | ({"flags_N": flags} if flags is not None else {})
    record = f"team:task/{task}"
    return some_face(record, 1, names[0], POINTS, **changes), some_face(record, 2, names[1], other, **second)


def compared(*pairs, prefixes=None):
    first, second = zip(*pairs, strict=True)
    return compare(first, second, prefixes or {})


def disputes(*pairs, settings=SETTINGS, **options):
    return find_disputes(compared(*pairs), settings, **options)


def test_annotations_of_a_task_are_brought_together():
    found = compared(pair(1), pair(2))
    assert [(view.key, view.annotators) for view in found.views] == [
        ("team:task/1", ("1", "2")),
        ("team:task/2", ("1", "2")),
    ]
    assert found.annotators == {"1", "2"}
    assert (found.repeats, found.unnamed) == ([], 0)


def test_faces_that_nobody_else_annotated_are_in_no_comparison():
    alone = some_face("team:task/3", 1, "7", POINTS)
    found = compare([alone], [], {})
    assert found.views == [] and found.annotators == {"7"}


def test_who_annotates_twice_speaks_once_and_the_rest_is_repeatability():
    used, other = pair(1)
    later = some_face("team:task/1", 9, "2", POINTS + 5)
    latest = some_face("team:task/1", 10, "2", POINTS + 1)
    found = compare([used], [other, latest, later], {})
    (view,) = found.views
    assert view.annotators == ("1", "2")
    np.testing.assert_allclose(view.points_AK2[1], POINTS + 1, atol=1e-4)
    (repeat,) = found.repeats
    assert repeat.annotators == ("2", "2")
    np.testing.assert_allclose(repeat.points_AK2[0], POINTS + 5, atol=1e-4)


def test_the_annotation_in_use_speaks_for_its_annotator_even_if_it_is_older():
    used, other = pair(1)
    later = some_face("team:task/1", 9, "1", POINTS + 5)
    (view,) = compare([used], [other, later], {}).views
    np.testing.assert_allclose(view.points_AK2[0], POINTS, atol=1e-4)


def test_annotations_by_nobody_in_particular_are_counted_and_left_out():
    report = report_agreement(compared(pair(1, names=("1", None))), SETTINGS, ())
    assert report.agreement is None
    assert "1 annotations of faces with several name no annotator" in " ".join(report.notes)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("7", "7"), "All annotations are by annotator 7: nothing can be said about agreement"),
        ((None, None), "No annotation names its annotator: nothing can be said about agreement"),
        (("7", None), "All annotations are by annotator 7"),
    ],
)
def test_one_annotator_says_nothing_about_agreement(names, said):
    report = report_agreement(compared(pair(1, names=names)), SETTINGS, ())
    assert report.agreement is None and report.disputes == ()
    assert said in report.notes[0]


def test_annotators_who_never_meet():
    faces = [some_face(f"team:task/{i}", 1, str(i), POINTS) for i in range(3)]
    report = report_agreement(compare(faces, [], {}), SETTINGS, ())
    assert "No face was annotated by two of the 3 annotators" in report.notes[0]


def test_a_number_is_another_person_on_another_server():
    def server(name, url):
        return LabelStudioSource(kind="label_studio", name=name, url=url, project=1)

    here, also_here = server("a", "http://one.test"), server("b", "http://one.test")
    there = server("c", "http://two.test")
    export = LabelStudioExportSource(kind="label_studio_export", name="d", files=["x"], image_root=".")
    assert annotator_prefixes([here, also_here]) == {"a": "", "b": ""}
    assert annotator_prefixes([here, also_here, there, export]) == {"a": "a/", "b": "a/", "c": "c/", "d": "d/"}
    names = compared(pair(1), prefixes={"team": "a/"}).annotators
    assert names == {"a/1", "a/2"}


def test_agreeing_faces_are_in_no_dispute():
    assert disputes(pair(1), pair(2, moved=(0.5, 0.5))) == ()


def test_a_region_that_is_far_apart():
    eye = np.hypot(*(POINTS[36] - POINTS[45]))
    by_percent = QualitySettings(max_region_spread_crop_px=None)
    faces = pair(1), pair(2, moved=(0.2 * eye, 0), points=range(48, 68))
    assert [dispute.record for dispute in disputes(*faces)] == ["team:task/2"]
    (found,) = disputes(*faces, settings=by_percent)
    assert (found.record, found.annotators, found.reviewed) == ("team:task/2", ("1", "2"), False)
    assert found.source_keys == ("team:task/2/annotation/1", "team:task/2/annotation/2")
    assert found.severity == pytest.approx(20 / by_percent.max_region_spread_percent, rel=1e-4)
    assert found.reasons[0].startswith("Mouth 20.0 % of inter-ocular, ")


def test_one_point_that_is_far_apart():
    (found,) = disputes(pair(1, moved=(0, 70), points=[8]))
    assert found.reasons == (found.reasons[0],) and found.reasons[0].startswith("P9 ")


def test_a_bound_in_both_units_must_be_exceeded():
    """In profile the eyes' corners nearly coincide, and any difference is many per cent."""
    profile = POINTS.copy()
    profile[45] = profile[36] + (3, 0)
    faces = some_face("team:task/1", 1, "1", profile), some_face("team:task/1", 2, "2", profile + np.array([1, 0]))
    assert disputes(faces) == ()
    by_percent_only = QualitySettings(max_region_spread_crop_px=None, max_point_spread_crop_px=None)
    assert len(disputes(faces, settings=by_percent_only)) == 1


def test_without_any_bound_nothing_is_too_far_apart():
    unbounded = QualitySettings(
        max_region_spread_percent=None,
        max_region_spread_crop_px=None,
        max_point_spread_percent=None,
        max_point_spread_crop_px=None,
    )
    assert disputes(pair(1, moved=(50, 50)), settings=unbounded) == ()


def test_a_layout_without_eyes_is_measured_in_crop_pixels():
    few = POINTS[:5]
    faces = some_face("team:task/1", 1, "1", few), some_face("team:task/1", 2, "2", few + 40)
    (found,) = disputes(faces)
    assert found.reasons[0].startswith("All ") and "inter-ocular" not in found.reasons[0]


def test_flags_in_dispute():
    flags = (np.arange(80) < 17).astype(np.int8)
    (found,) = disputes(pair(1, flags=flags))
    assert found.reasons == ("occlusion of 17 of 80 points (21%) in dispute",)
    assert disputes(pair(1, flags=flags), settings=QualitySettings(max_flag_dispute=0.25)) == ()
    (strict,) = disputes(
        pair(1, flags=(np.arange(80) < 1).astype(np.int8)), settings=QualitySettings(max_flag_dispute=0)
    )
    assert strict.severity == 2.0


def test_the_worst_comes_first_and_what_was_reviewed_last():
    found = disputes(
        pair(1, moved=(20, 0)), pair(2, moved=(30, 0)), pair(3, moved=(60, 0)), reviewed=frozenset({"team:task/3"})
    )
    assert [dispute.record for dispute in found] == ["team:task/2", "team:task/1", "team:task/3"]
    report = report_agreement(compared(pair(3, moved=(60, 0))), SETTINGS, {"team:task/3"})
    assert len(report.disputes) == 1 and report.open_disputes == ()


def test_a_task_with_a_ground_truth_annotation_was_reviewed(tmp_path):
    def record(number, payload):
        return RawRecord("label_studio", "team", "set", f"task/{number}", payload, None, True, None)

    payloads = [
        {"annotations": [{"ground_truth": True}, {"ground_truth": False}]},
        {"annotations": [{"ground_truth": False}]},
        {"annotations": None},
        {"annotations": ["odd"]},
    ]
    write_raw(tmp_path / "raw.jsonl", [record(i, payload) for i, payload in enumerate(payloads)])
    assert reviewed_records([tmp_path / "raw.jsonl"]) == {"team:task/0"}


def test_a_record_s_key_is_what_is_before_the_annotation():
    assert record_of("team:task/7/annotation/12") == "team:task/7"
    assert record_of("team:gt/train.json#12") == "team:gt/train.json#12"


def test_three_annotators_are_measured_together():
    used, other = pair(1)
    third = some_face("team:task/1", 3, "3", POINTS + np.array([3, 0]))
    report = report_agreement(compare([used], [other, third], {}), SETTINGS, ())
    assert report.agreement.annotators == ("1", "2", "3")
    assert report.notes == ()
    lean = {bias.annotator: bias.offsets["source_px"]["All"].x.value for bias in report.agreement.biases}
    assert lean == pytest.approx({"1": -1.5, "2": -1.5, "3": 3.0}, abs=1e-4)


def test_unknown_subjects_are_no_obstacle():
    report = report_agreement(compared(*(pair(i, subject=None) for i in range(3))), SETTINGS, ())
    assert (report.agreement.drawn, report.agreement.subjects) == ("faces", 0)


def test_a_face_without_a_record_of_several_keeps_its_key():
    face = replace(some_face("x", 1, "1", POINTS), source_key="folder:gt/a.json#1/face2")
    assert compare([face], [], {}).views == []
