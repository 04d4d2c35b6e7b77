"""The gate, on a registry of MLflow's own: small networks with fresh weights on blob faces."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from model.paired import Outcome
from schemas.errors import SpecError
from schemas.records import Split
from schemas.source_code import OUR_PACKAGES, SOURCE_ROOT, code_version
from tasks.forget.files import files_below, purge_file, still_tells
from tasks.forget.traces import Traces
from tasks.mlflow_client import mlflow_client
from tasks.paired_scores import FACES, read_faces
from tasks.review.tags import REPORT_HASH
from tasks.verdict import VERDICT, State, read_verdict
from tests.gate_cases import KPI_FACES, conversion_of, gate_case, gate_spec, tags_of, write_snapshot
from tests.networks import sharp_network
from tests.shard_files import blob_face, write_shard


def small_network(*, sharpness: float):
    network = sharp_network("FpeNet_public", width=4, num_keypoints=5)
    logits = network.get_layer("conv_keypoints_m5")
    logits.set_weights([weight * np.float32(sharpness) for weight in logits.get_weights()])
    return network


ONE = small_network(sharpness=300.0)
OTHER = small_network(sharpness=0.0)
"""The first sees points anywhere; the second all in the middle of the crop, which is better by a dozen pixels."""


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return gate_case(tmp_path_factory.mktemp("gate"))


@pytest.fixture(scope="module")
def one(case):
    return case.register(ONE)


@pytest.fixture(scope="module")
def other(case):
    return case.register(OTHER)


@pytest.fixture(scope="module")
def alone(case, one):
    """The verdict on the first version, before there was a champion."""
    return case.judge(ONE, one)


@pytest.fixture(scope="module")
def against(case, alone, one, other):
    """The second version against the first."""
    case.crown(one)
    return case.judge(OTHER, other)


def whole(verdict):
    assert verdict.rows[0].name == "All"
    return verdict.rows[0]


def set_tag(case, registered, name, value):
    with mlflow_client(case.config.tracking, case.workspace) as client:
        client.set_model_version_tag(registered.name, registered.version, name, value)


def artifact_of(case, registered) -> dict:
    with mlflow_client(case.config.tracking, case.workspace) as client:
        path = client.download_artifacts(registered.run_id, "review/verdict.json")
    return json.loads(Path(path).read_text())


def test_without_a_champion_the_absolute_bounds_decide(case, one, alone):
    assert (alone.state, alone.champion, alone.blocks) == (State.PASSED, None, False)
    assert (alone.faces, alone.subjects, whole(alone).faces) == (KPI_FACES, 6, KPI_FACES)
    assert whole(alone).allowance_px == 200.0
    tags = tags_of(case, one)
    assert (tags["gate"], tags["gate.champion"]) == ("passed", "none")
    assert tags["gate.rules_sha256"] == alone.rules_sha256
    assert "absolute bounds" in tags["gate.summary"]
    assert artifact_of(case, one) == json.loads(alone.file.read_text())


def test_the_verdict_is_all_in_its_file(alone):
    assert read_verdict(alone.directory) == dataclasses.replace(alone, reused=True)
    told = json.loads((alone.directory / VERDICT).read_text())
    assert told["rules"]["minimum_subjects"] == 3 and told["rows"][0]["outcome"] == "passed"


def test_champion_and_challenger_are_measured_on_the_same_faces(case, one, other, alone, against):
    row = whole(against)
    assert against.champion == one.version
    assert row.champion_px == pytest.approx(whole(alone).challenger_px), "as it was measured alone"
    assert row.difference_px == pytest.approx(row.challenger_px - row.champion_px)
    faces = read_faces(against.directory)
    assert faces.champion_px_F.mean() == pytest.approx(row.champion_px)
    assert faces.challenger_px_F.mean() == pytest.approx(row.challenger_px)
    expected = [blob_face(i) for i in range(KPI_FACES)]
    np.testing.assert_allclose(faces.true_FN2, [face.points_N2 for face in expected], atol=1e-3)
    assert faces.names == tuple(face.name for face in expected)
    assert faces.position_F.tolist() == list(range(KPI_FACES))
    assert faces.champion_FN2.shape == faces.challenger_FN2.shape == (KPI_FACES, 5, 2)
    assert tags_of(case, other)["gate.champion"] == one.version


def test_the_worse_of_two_fails_and_is_told(case, one, other, against):
    case.crown(other)
    worse = case.judge(ONE, one)
    case.crown(one)
    assert whole(worse).difference_px == pytest.approx(-whole(against).difference_px)
    assert (against.state, against.blocks) == (State.PASSED, False)
    assert (worse.state, worse.blocks) == (State.FAILED, True)
    assert f"against version {other.version}" in worse.summary and "All +" in worse.summary
    tags = tags_of(case, one)
    assert (tags["gate"], tags["gate.summary"]) == ("failed", worse.summary)


@pytest.mark.parametrize("changed", ["verdict.py", "opponent.py"])
def test_a_verdict_is_found_again_where_the_code_that_finds_it_changed(
    case, other, against, changed, tmp_path, monkeypatch
):
    for package in OUR_PACKAGES:
        shutil.copytree(SOURCE_ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr("schemas.source_code.SOURCE_ROOT", tmp_path)
    code_version.cache_clear()
    same = case.judge(OTHER, other)
    with (tmp_path / "tasks" / changed).open("a") as file:
        file.write("# changed\n")
    code_version.cache_clear()
    anew = case.judge(OTHER, other)
    code_version.cache_clear()
    assert (same.key, same.reused, anew.reused) == (against.key, True, False)
    assert anew.rows == against.rows


def test_a_rerun_measures_nothing_and_changes_nothing(case, other, against):
    set_tag(case, other, REPORT_HASH, "a" * 64)
    before = tags_of(case, other), {path: path.stat().st_mtime_ns for path in files_below(case.workspace.verdicts)}
    again = case.judge(OTHER, other)
    assert again == dataclasses.replace(against, reused=True)
    after = tags_of(case, other), {path: path.stat().st_mtime_ns for path in files_below(case.workspace.verdicts)}
    assert after == before


def test_other_rules_are_another_verdict(case, other, against, tmp_path):
    strict = tmp_path / "rules.yaml"
    rules = Path(case.config.promotion_rules).read_text()
    strict.write_text(
        rules.replace("minimum_subjects: 3", "minimum_subjects: 7\nsmall_slices: {occlusion: show}").replace(
            "  regions:", "  slices: {occlusion: 9}\n  regions:"
        )
    )
    config = case.config.model_copy(update={"promotion_rules": str(strict)})
    set_tag(case, other, REPORT_HASH, "a" * 64)
    verdict = dataclasses.replace(case, config=config).judge(OTHER, other)
    assert verdict.state is State.INCONCLUSIVE and verdict.blocks
    assert "under 7 subjects, or faces of unknown ones, in All (6)" in verdict.summary
    assert "; too few subjects, shown only: occlusion" in verdict.summary
    assert whole(verdict).outcome is Outcome.INCONCLUSIVE
    assert tags_of(case, other)["gate"] == "inconclusive"
    assert REPORT_HASH not in tags_of(case, other), "what stood there was about another verdict"
    assert tags_of(case, other)["gate.rules_sha256"] == verdict.rules_sha256 != against.rules_sha256
    strict.write_text("minimum_subjects: 7\n")
    with pytest.raises(SpecError, match="allowance_crop_px"):
        dataclasses.replace(case, config=config).judge(OTHER, other)


def test_the_champion_is_not_judged_and_keeps_what_was_said_of_it(case, one, against):
    before = tags_of(case, one)
    verdict = case.judge(ONE, one)
    assert (verdict.state, verdict.rows, verdict.blocks) == (State.IS_CHAMPION, (), False)
    assert tags_of(case, one) == before


def champion_in_the_way(case, one, other, spec=None, snapshot_id=None):
    """The verdict on the second version against a champion that is the first, with this spec and snapshot."""
    champion = case.register_again(one, spec=spec, snapshot_id=snapshot_id)
    case.crown(champion)
    return champion, case.judge(OTHER, other)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (gate_spec(num_keypoints=68), "predicts 68 keypoints, this version 5"),
        (gate_spec(channel=3), "reads 3 colour channels, the KPI shards are made for 1"),
        (gate_spec(ratio=3.0), r"a crop 3 times .* train with bbox_enlarge_ratio 1\.88 or more"),
    ],
)
def test_a_champion_that_can_not_be_compared_blocks_and_says_what_to_do(case, one, other, spec, reason):
    champion, verdict = champion_in_the_way(case, one, other, spec)
    case.crown(one)
    assert (verdict.state, verdict.blocks, verdict.rows) == (State.NOT_COMPARABLE, True, ())
    assert len(verdict.reasons) == 1
    assert re.search(reason, verdict.reasons[0])
    assert "override" in verdict.reasons[0]
    tags = tags_of(case, other)
    assert (tags["gate"], tags["gate.champion"]) == ("not comparable", champion.version)
    assert not (verdict.directory / FACES).exists()


def test_a_champion_of_another_crop_is_measured_through_its_own(case, one, other, alone):
    """Its error is the one that it would have on shards converted as it was trained."""
    champion, verdict = champion_in_the_way(case, one, other, gate_spec(ratio=1.0))
    faces = [blob_face(i, ratio=1.0) for i in range(KPI_FACES)]
    shard = write_shard(case.workspace.shards / "tight.tfrecords", faces)
    tight = conversion_of(shard, case.conversion.result["snapshot"])
    case.crown(other)
    own = case.judge(ONE, one, conversion=tight, spec=gate_spec(ratio=1.0))
    case.crown(one)
    assert whole(verdict).champion_px == pytest.approx(whole(own).challenger_px, abs=1.0)
    assert abs(whole(verdict).champion_px - whole(alone).challenger_px) > 2.0
    assert verdict.champion == champion.version
    scored = read_faces(verdict.directory)
    lengths = [
        np.linalg.norm(points_FN2 - scored.true_FN2, axis=-1).mean(axis=-1) / px_F
        for points_FN2, px_F in (
            (scored.challenger_FN2, scored.challenger_px_F),
            (scored.champion_FN2, scored.champion_px_F),
        )
    ]
    assert np.allclose(*lengths, rtol=1e-3), "the points of both lie in the frame: a crop pixel is as long for either"


@pytest.mark.parametrize("split", [Split.TRAIN, Split.VALIDATION])
def test_a_champion_that_has_learnt_from_the_kpi_subjects_blocks_and_names_them(case, one, other, split):
    learnt = write_snapshot(case.workspace, {split: [blob_face(i) for i in (2, 3, 30)]})
    _, verdict = champion_in_the_way(case, one, other, snapshot_id=learnt)
    case.crown(one)
    assert verdict.state is State.NOT_COMPARABLE
    (reason,) = verdict.reasons
    assert "trained on 1 of the KPI subjects: blobs/001" in reason and "split.kpi_subjects" in reason
    assert "blobs/" not in tags_of(case, other)["gate.summary"], "tags are not redacted when somebody withdraws"


def test_the_same_images_under_other_subjects_are_found(case, one, other):
    renamed = [dataclasses.replace(blob_face(i), subject="elsewhere/1") for i in (4, 5)]
    learnt = write_snapshot(case.workspace, {Split.TRAIN: renamed})
    _, verdict = champion_in_the_way(case, one, other, snapshot_id=learnt)
    case.crown(one)
    assert "trained on 2 of the KPI images, under other subjects" in verdict.reasons[0]


def test_a_champion_whose_snapshot_is_elsewhere_blocks_until_it_is_brought(case, one, other, tmp_path):
    learnt = write_snapshot(case.workspace, {Split.TRAIN: [blob_face(i) for i in range(40, 44)]})
    shutil.move(case.workspace.snapshots / learnt, tmp_path / learnt)
    _, verdict = champion_in_the_way(case, one, other, snapshot_id=learnt)
    assert f"the snapshot ({learnt[:12]})" in verdict.reasons[0] and "copy it there" in verdict.reasons[0]
    shutil.move(tmp_path / learnt, case.workspace.snapshots / learnt)
    verdict = case.judge(OTHER, other)
    case.crown(one)
    assert verdict.state in (State.PASSED, State.FAILED) and verdict.rows


@pytest.mark.parametrize("lost", ["experiment_spec.yaml", "model.keras"])
def test_a_champion_whose_files_are_lost_blocks(case, one, other, lost):
    champion = case.register_again(one)
    folder = "models" if lost == "model.keras" else champion.run_id
    paths = {path: path.read_bytes() for path in case.workspace.artifacts.rglob(lost) if folder in path.parts}
    for path in paths:
        path.unlink()
    case.crown(champion)
    verdict = case.judge(OTHER, other)
    case.crown(one)
    for path, kept in paths.items():  # other versions are of the same network
        path.write_bytes(kept)
    assert paths
    assert verdict.state is State.NOT_COMPARABLE
    assert f"fpenet version {champion.version} (champion)" in verdict.reasons[0]


def test_whoever_withdraws_is_taken_out_of_verdicts_too(case, against, tmp_path):
    kept = tmp_path / "verdict"
    shutil.copytree(against.directory, kept)
    told = json.loads((kept / VERDICT).read_text()) | {"reasons": ["trained on 1 of the KPI subjects: blobs/001; so"]}
    (kept / VERDICT).write_text(json.dumps(told))
    names = frozenset(blob_face(i).name for i in (2, 3))
    traces = Traces(subject="blobs/001", mark="redacted/abc", names=names)
    for path in list(files_below(kept)):
        purge_file(path, traces)
    assert not any(still_tells(path, traces) for path in files_below(kept))
    assert "redacted/abc" in read_verdict(kept).reasons[0]
    faces = read_faces(kept)
    assert len(faces) == KPI_FACES - 2 and "blobs/001" not in faces.subjects
    assert faces.position_F.tolist() == [0, 1, *range(4, KPI_FACES)], "places in the shards as they were"
