"""Splits by subject: nobody is in two, KPI subjects are never learnt from, and a split never depends on order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.config import SplitPolicy
from schemas.errors import SpecError, SplitError, SubjectLeakError
from schemas.records import Face, Split
from tasks.splits import assign_splits, kpi_subjects, refuse_leaks


def face(subject, *, set_id="all", image="i"):
    return Face(
        source_key=f"src:{set_id}#{subject}",
        image="a.png",
        image_name="a.png",
        image_sha256=image,
        frame_width=9,
        frame_height=9,
        subject=subject,
        set_id=set_id,
        points_N2=np.zeros((2, 2), np.float32),
        flags_N=np.zeros(2, np.int8),
    )


def policy(*kpi, **more):
    return SplitPolicy(kpi_subjects=list(kpi), **more)


def split_by_subject(subjects, policy):
    faces = [face(subject) for subject in subjects]
    return dict(zip(subjects, assign_splits(faces, policy), strict=True))


MANY = [f"d/{i:03d}" for i in range(300)]


@given(
    subjects=st.permutations(MANY),
    share=st.floats(0, 0.5),
    seed=st.integers(0, 9),
    kpi=st.sets(st.sampled_from(MANY), min_size=1, max_size=50),
)
def test_order_and_newcomers_move_nobody(subjects, share, seed, kpi):
    rules = policy(*kpi, validation_share=share, seed=seed)
    whole = split_by_subject(subjects, rules)
    assert {s for s, split in whole.items() if split is Split.KPI} == kpi
    half = [*kpi, *(s for s in subjects[:150] if s not in kpi)]
    if any(whole[s] is Split.VALIDATION for s in half):
        assert split_by_subject(half, rules).items() <= whole.items()


def test_validation_share_is_met_and_depends_on_the_seed():
    by_seed = [split_by_subject(MANY, policy("d/000", validation_share=0.2, seed=seed)) for seed in (0, 1)]
    counts = [list(splits.values()).count(Split.VALIDATION) for splits in by_seed]
    assert all(35 <= count <= 85 for count in counts) and by_seed[0] != by_seed[1]


def test_at_least_one_subject_validates_if_a_share_is_asked_for():
    for seed in range(9):  # the lowest draw is that of the KPI subject too
        splits = split_by_subject(["k/1", "d/1", "d/2"], policy("k/1", validation_share=1e-9, seed=seed))
        assert sorted(splits.values()) == [Split.KPI, Split.TRAIN, Split.VALIDATION]
    assert (
        Split.VALIDATION not in split_by_subject(["k/1", "d/1", "d/2"], policy("k/1", validation_share=0.0)).values()
    )


def test_faces_without_a_subject_are_only_trained_on():
    assert assign_splits([face("k/1"), face(None)], policy("k/1", validation_share=1.0)) == [Split.KPI, Split.TRAIN]


def test_default_policy_holds_out_the_model_cards_subjects():
    splits = split_by_subject(
        ["multipie/078", "multipie/079", "multipie/346", "other/079"], SplitPolicy(validation_share=0.0)
    )
    assert list(splits.values()) == [Split.TRAIN, Split.KPI, Split.KPI, Split.TRAIN]


@pytest.mark.parametrize("text", ["# held out\n007\n\n 1008 \n", "\ufeff007\r\n1008", "\ufeff# held out\n007\n1008"])
def test_kpi_subjects_from_files(tmp_path, text):
    (tmp_path / "kpi.txt").write_bytes(text.encode())
    rules = policy("x/1", kpi_subject_files={"w300": str(tmp_path / "kpi.txt")})
    assert kpi_subjects(rules) == {"x/1", "w300/007", "w300/1008"}


@pytest.mark.parametrize("written", ["j\u00f6rg", "jo\u0308rg"])
def test_kpi_subjects_are_composed_as_those_of_faces_are(tmp_path, written):
    (tmp_path / "kpi.txt").write_text(f"{written}\n", encoding="utf-8")
    rules = policy(f"x/{written}", kpi_subject_files={"w300": str(tmp_path / "kpi.txt")})
    assert kpi_subjects(rules) == {"x/j\u00f6rg", "w300/j\u00f6rg"}


def test_unusable_kpi_lists_are_refused(tmp_path):
    with pytest.raises(SpecError, match=r"split.kpi_subject_files.w300: .*nowhere.txt can't be read: No such file"):
        kpi_subjects(policy(kpi_subject_files={"w300": str(tmp_path / "nowhere.txt")}))
    with pytest.raises(SpecError, match=r"split.kpi_subject_files.w300: x\x00y can't be read: embedded null byte"):
        kpi_subjects(policy(kpi_subject_files={"w300": "x\0y"}))
    (tmp_path / "kpi.txt").write_bytes("007\nJosé\n".encode("latin-1"))
    with pytest.raises(SpecError, match=r"split.kpi_subject_files.w300: .*kpi.txt is no text in UTF-8: line 2 has"):
        kpi_subjects(policy(kpi_subject_files={"w300": str(tmp_path / "kpi.txt")}))
    for wrong in ("079", "d/079/left"):
        with pytest.raises(SpecError, match=f"KPI subject '{wrong}' is not <dataset>/<id>"):
            kpi_subjects(policy(wrong))


def test_no_kpi_faces_is_an_error_with_examples_of_both_sides():
    with pytest.raises(SplitError, match=r"0 KPI subjects .* Listed are k/1; the records have d/1, d/2\. Correct"):
        assign_splits([face("d/1"), face("d/2")], policy("k/1"))
    with pytest.raises(SplitError, match="1 KPI subjects among the records, 2 needed"):
        assign_splits([face("k/1"), face("d/2")], policy("k/1", kpi_min_subjects=2))


def test_nothing_to_train_on_is_an_error():
    with pytest.raises(SplitError, match="no face is left to train on: 1 are for the KPI and 1 for validation"):
        assign_splits([face("k/1"), face("d/1")], policy("k/1", validation_share=1.0))


@pytest.mark.parametrize("set_id", ["train", "MultiPIE_Training", "val", "sets/validation"])
def test_kpi_subject_in_a_set_for_training_is_refused_with_both_names(set_id):
    with pytest.raises(SubjectLeakError, match=rf"src, set {set_id}: KPI subject k/1 must not be trained on"):
        assign_splits([face("k/1", set_id=set_id), face("d/1", set_id=set_id)], policy("k/1"))


@pytest.mark.parametrize("set_id", ["kpi", "trainer", "7", "strain"])
def test_other_set_names_say_nothing_about_training(set_id):
    assert assign_splits([face("k/1", set_id=set_id), face("d/1")], policy("k/1"))[0] is Split.KPI


def test_leaks_in_finished_splits_are_refused():
    held, other = face("k/1", image="a"), face("d/1", image="b")
    refuse_leaks([held, other], [Split.KPI, Split.TRAIN], ["k/1"], "here")
    with pytest.raises(SubjectLeakError, match="here, split train: KPI subject k/1 must"):
        refuse_leaks([held, other], [Split.TRAIN, Split.TRAIN], ["k/1"], "here")
    with pytest.raises(SubjectLeakError, match="here, split validation: KPI subject k/2 must"):
        refuse_leaks([face("k/2"), face("k/2")], [Split.VALIDATION, Split.KPI], [], "here")
    with pytest.raises(SubjectLeakError, match=r"image a\.png"):
        refuse_leaks([held, face(None, image="a")], [Split.KPI, Split.TRAIN], ["k/1"], "here")
