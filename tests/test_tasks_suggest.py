"""Pieces of the way back that need no server: boxes of tasks, scores, whose prediction is whose."""

import tracemalloc
from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest

from model.labelling_order import rarity
from model.labelling_signals import FaceSignals
from schemas import label_studio
from schemas.config import SplitPolicy, ValidationRules, WorkflowConfig
from schemas.geometry import Box
from schemas.label_studio_task import face_regions
from schemas.records import Flag
from schemas.sources import LabelStudioSource, SubjectRule
from schemas.storage import write_json
from tasks.images import ImageIndex
from tasks.label_studio.client import connected
from tasks.label_studio.predictions import Prediction, is_ours, listed_task, version_name
from tasks.labelling.faces import ModelInput, open_faces, task_box, usable_tasks
from tasks.labelling.suggest import Known, labelled_snapshot, open_network, rank, scores_of
from tasks.snapshot import PROVENANCE, take_snapshot
from tasks.tombstones import Tombstones
from tasks.tracking import register_candidate
from tasks.validate import validate
from tasks.workspace import Workspace
from tests.candidates import make_candidate
from tests.raw_records import NUM_KEYPOINTS, sloth_records

FRAME = (120, 90)
BOX = Box(18.0, 28.0, 40.0, 20.0)
FIELDS = {"face_tight_bboxx": 1, "face_tight_bboxy": 2, "face_tight_bboxwidth": 30, "face_tight_bboxheight": 31.5}
SOURCE = LabelStudioSource(
    kind="label_studio", name="team", url="http://x", project=1, subject=SubjectRule(field="subject")
)


def some_regions(box=BOX, origin="manual"):
    points = np.array([[20.25, 30.5], [50.0, 41.75]])
    return face_regions(points, np.array([1, 0]), frame_size=FRAME, tight_box=box, origin=origin)


def some_task(identity=1, *, touched=False, drafts=(), predictions=(), **data):
    """A task as it is listed; `predictions` by model version."""
    stored = {
        "id": identity,
        "data": {"image": "a.png"} | data,
        "total_annotations": int(touched),
        "cancelled_annotations": 0,
        "drafts": [{"result": result} for result in drafts],
        "predictions": [
            {"id": number, "model_version": version, "score": 0.5, "result": result}
            for number, (version, result) in enumerate(dict(predictions).items())
        ],
    }
    return listed_task(stored, "fpenet")


def test_a_predicted_face_reads_back_as_it_was_predicted():
    result = some_regions(origin="prediction")
    assert {region["origin"] for region in result} == {"prediction"}
    payload = {"data": {"image": "a.png"}, "annotations": [{"id": 1, "result": result}]}
    (face,), problems = label_studio.read(payload, num_keypoints=2, flags_known=True)
    assert not problems
    np.testing.assert_allclose(face.points_N2, [[20.25, 30.5], [50.0, 41.75]], atol=1e-5)
    assert face.flags_N.tolist() == [Flag.OCCLUDED, Flag.VISIBLE]
    np.testing.assert_allclose(face.tight_box, BOX)


def test_boxes_come_from_drafts_then_others_predictions_then_the_data():
    mine = {"fpenet v3": some_regions(Box(0, 0, 10, 10))}
    others = {None: ["junk"], "points": some_regions(None), "detector": some_regions(Box(5, 6, 50, 50))}
    task = some_task(drafts=[some_regions()], predictions=mine | others, **FIELDS)
    np.testing.assert_allclose(task_box(task), BOX)
    np.testing.assert_allclose(task_box(some_task(predictions=mine | others, **FIELDS)), (5, 6, 50, 50))
    assert task_box(some_task(predictions=mine, **FIELDS)) == Box(1, 2, 30, 31.5)
    assert task_box(some_task(predictions=mine)) is None


def test_a_prediction_is_the_same_however_its_numbers_are_written():
    def wanted(version="fpenet v3", score=0.5, **value):
        return Prediction(1, version, score, [{"id": "P1", "value": {"x": 20, "y": 0.0, "z": True} | value}])

    stored = [{"value": {"z": True, "y": -0.0, "x": 20.0}, "id": "P1"}]
    (known,) = some_task(predictions={"fpenet v3": stored}).predictions
    assert known.same_as(wanted())
    for other in (wanted(version="fpenet v4"), wanted(score=None), wanted(x=20.01), wanted(y="0.0"), wanted(w=1)):
        assert not known.same_as(other)


def test_a_listed_task_takes_little_memory():
    """A project may have 100,000, each with keypoints of ours and somebody else's."""
    points_N2 = np.arange(160.0).reshape(80, 2) / 7
    tracemalloc.start()
    try:
        regions = [
            {version: face_regions(points_N2, np.ones(80), frame_size=FRAME) for version in ("fpenet v1", "other")}
            for _ in range(20)
        ]
        held = tracemalloc.get_traced_memory()[0] / len(regions)
        tasks = [some_task(number, predictions=regions.pop()) for number in range(len(regions))]
        assert tracemalloc.get_traced_memory()[0] / len(tasks) < 4_000 < 80_000 < held
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("value", ["30", None, float("nan")])
def test_a_box_in_the_data_is_numbers_or_none(value):
    assert task_box(some_task(**(FIELDS | {"face_tight_bboxx": value}))) is None


def test_what_may_not_or_need_not_be_looked_at_is_left_out(tmp_path):
    tombstones = Tombstones.of(tmp_path).with_grave("team/2", by="test", why="asked")
    tasks = [
        some_task(1, subject="team/1"),
        some_task(2, subject="team/2"),
        some_task(3, subject="team/3"),
        some_task(4, touched=True),
        some_task(5, subject="team/1", image=7),
    ]
    usable, left_out = usable_tasks(tasks, SOURCE, held_out=frozenset({"team/3"}), tombstones=tombstones)
    assert [task.id for task in usable] == [1]
    assert {item.task: item.reason for item in left_out} == {
        2: "its subject was forgotten",
        3: "its subject is held out for the KPI",
        5: "its data has no field 'image'",
    }


def test_subjects_are_those_of_the_field_with_the_image(tmp_path):
    rule = SubjectRule(dataset="team", pattern=r"(?P<subject>\d{3})_")
    source = SOURCE.model_copy(update={"subject": rule, "image_field": "photo"})
    tombstones = Tombstones.of(tmp_path).with_grave("team/002", by="test", why="asked")
    tasks = [some_task(number, photo=f"s3://faces/{number:03}_x.png", reference="001_x.png") for number in (1, 2, 3)]
    usable, left_out = usable_tasks(tasks, source, held_out=frozenset({"team/003"}), tombstones=tombstones)
    assert [task.id for task in usable] == [1]
    assert [item.task for item in left_out] == [2, 3]


@pytest.fixture
def snapshots(tmp_path):
    """Three, by their ids from the oldest to the newest; written in another order."""
    found = {}
    for taken_at in ("2026-11-22T10:00:00+00:00", "2026-11-22T09:30:00-02:00", "2026-11-22T09:00:00+00:00"):
        records = sloth_records(tmp_path / taken_at[11:13], 6 + len(found))
        validation = validate(
            records, num_keypoints=NUM_KEYPOINTS, rules=ValidationRules(max_rejected_share=1.0), index=ImageIndex()
        )
        directory = take_snapshot(
            validation,
            policy=SplitPolicy(kpi_subjects=["d/000"]),
            num_keypoints=NUM_KEYPOINTS,
            snapshots=tmp_path / "snapshots",
            provenance={},
        ).directory
        write_json(directory / PROVENANCE, {"taken_at": taken_at})
        found[datetime.fromisoformat(taken_at)] = directory.name
    return [found[time] for time in sorted(found)]


def test_the_labelled_faces_are_those_the_model_was_trained_on(snapshots, tmp_path):
    workspace = Workspace(tmp_path)
    for identity, chosen in ((snapshots[0], snapshots[0]), (None, snapshots[2]), ("f" * 64, snapshots[2])):
        assert labelled_snapshot(workspace, identity, NUM_KEYPOINTS).id == chosen
    assert labelled_snapshot(workspace, snapshots[0], NUM_KEYPOINTS + 1) is None
    assert labelled_snapshot(Workspace(tmp_path / "none"), snapshots[0], NUM_KEYPOINTS) is None


def test_the_crop_is_the_models_own_not_the_configurations(tmp_path):
    candidate, workspace = make_candidate(tmp_path), Workspace(tmp_path / "workspace")
    dataloader = candidate.spec.dataloader.model_copy(update={"bbox_enlarge_ratio": 1.2})
    trained = replace(candidate, spec=candidate.spec.model_copy(update={"dataloader": dataloader}))
    config = WorkflowConfig(sources=[SOURCE], num_keypoints=68, experiment_spec="not read here")
    register_candidate(trained, config.tracking, workspace)
    assert config.conversion.bbox_enlarge_ratio == 1.0
    assert open_network(config, workspace).input == ModelInput(80, 1, 1.2)


def some_signals(confidence_FN):
    faces, num_keypoints = confidence_FN.shape
    rng = np.random.default_rng(faces)
    points_FN2 = rng.normal(40, 9, (faces, num_keypoints, 2))
    return FaceSignals(points_FN2, confidence_FN, np.ones(faces), rng.normal(size=(faces, 3)))


@pytest.mark.parametrize("threshold", [0.5, np.nan])
def test_occlusion_counts_as_rare_by_what_the_model_says_of_both(threshold):
    """Three labelled faces of ten, and one open face of two, are occluded to it; the labels' flags say nothing."""
    confidence_LN, confidence_FN = np.ones((10, 5)), np.ones((2, 5))
    confidence_LN[:3], confidence_FN[1] = 0.1, 0.1
    labelled = some_signals(confidence_LN)
    known = Known(labelled, labelled.points_FN2, np.full(5, threshold), flagged=0)
    found_F = rank(some_signals(confidence_FN), known, count=2).rarity_F
    assert known.proposes_occlusion == np.isfinite(threshold)
    if np.isfinite(threshold):
        np.testing.assert_allclose(found_F, rarity(np.array([0, 1]), np.array([1] * 3 + [0] * 7))[0])
        assert found_F[1] > found_F[0]
    else:
        assert found_F.tolist() == [1, 1]


def test_an_image_that_is_gone_or_none_is_left_out(tmp_path):
    junk = tmp_path / "junk.png"
    junk.write_bytes(b"junk")
    wanted = ModelInput(size=80, channels=1, enlarge_ratio=1.0)
    tasks = [some_task(number, image=str(path)) for number, path in ((1, junk), (2, tmp_path / "gone.png"))]
    with connected("http://127.0.0.1:1", "secret") as connection:
        left_out = open_faces(
            tasks, SOURCE, connection, wanted, predict=None, search=False, folder=tmp_path / "images"
        )
        assert [(item.task, item.reason) for item in left_out] == [
            (1, "its image can't be read"),
            (2, "its image can't be had: no such file"),
        ]


def test_the_best_has_the_lowest_score_and_the_rest_the_highest():
    assert scores_of(5, [3, 0]) == [0.666667, 1.0, 1.0, 0.333333, 1.0]
    assert scores_of(2, []) == [1.0, 1.0]


def test_ours_are_those_of_any_version_of_the_model_and_no_others():
    assert is_ours(version_name("fpenet", "12"), "fpenet")
    for other in ("fpenet", "fpenet v", "fpenet v1 beta", "fpenet-demo v1", "detector", "", None):
        assert not is_ours(other, "fpenet")
    assert not is_ours("fpenet v1", "fpenet.")
