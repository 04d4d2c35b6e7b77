"""The model card: the run's numbers, in words that name nobody."""

import re
from copy import deepcopy
from dataclasses import replace

import pytest

from model.evaluation_report import evaluation_report
from tasks.model_card import limits, model_card, shown_slices
from tasks.pages import number
from tests.evaluation_sets import made_up_evaluation
from tests.run_summaries import made_up_candidate, made_up_summary


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    return made_up_summary(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def card(summary):
    return model_card(summary)


def rows_of(card, section):
    """First cell -> the others, of the tables below a heading."""
    _, found, below = card.partition(f"# {section}\n")
    assert found, section
    lines = re.split(r"^#", below, maxsplit=1, flags=re.MULTILINE)[0].splitlines()
    cells = (re.split(r"(?<!\\)\|", line)[1:-1] for line in lines if line.startswith("|"))
    return {first.strip(): [cell.strip() for cell in rest] for first, *rest in cells}


def in_words(cell):
    interval = "" if cell["low"] is None else f" ({number(cell['low'])} to {number(cell['high'])})"
    return f"{number(cell['error'])}{interval}"


def limits_of(summary):
    return "\n".join(limits(summary))


def test_errors_are_the_reports(summary, card):
    report = summary.evaluation
    accuracy = rows_of(card, "Accuracy")
    for region, table in report["regions"].items():
        cells = table["crop_px"]
        samples = (f"{table['samples'][points]:,}" for points in ("all", "visible"))
        assert accuracy[region] == [in_words(cells["all"]), in_words(cells["visible"]), *samples]
    assert len(shown_slices(report)["set"]) == 2
    for part in report["slices"]["set"]:
        error = part["regions"]["All"]["crop_px"]
        sizes = [str(part["faces"]), str(part["subjects"])]
        assert rows_of(card, "By set")[part["name"]] == [*sizes, in_words(error["all"]), in_words(error["visible"])]
    for name in ("auc", "auc_low", "auc_high"):
        assert number(report["curves"]["crop_px"][name]) in card
    quality = report["confidence"]["All"]
    assert f"{quality['auc']:.3f} ({quality['low']:.3f} to {quality['high']:.3f})" in card
    assert f"of equal width: {number(quality['calibration_error'])}." in card


def test_every_part_of_the_run_is_told(summary, card):
    assert rows_of(card, "fpenet/3: model card") == {
        "": [""],
        "---": ["---"],
        "version": ["fpenet/3"],
        "candidate": [f"`{summary.candidate.key}`"],
        "annotations": [f"snapshot `{summary.snapshot_id}`"],
        "code": ["0.1.0, commit `beef`"],
        "gate": ["failed; the champion is version 2"],
    }
    network = rows_of(card, "What it is")
    assert network["network"] == ["FpeNet_public, width 64, map_stride 1"]
    assert network["size"] == ["139,024 parameters, 0.073 GMAC for a face"]
    assert network["input"][0].endswith("the square around the face, 1.15 times enlarged")
    engines = rows_of(card, "Engines")
    assert engines["cpu"] == ["onnxruntime 1.31.1", "fp32", "2.1e-05", "0.00012", "1.34 ms", "ran"]
    assert engines["rtx"][2:5] == ["not measured"] * 3 and engines["rtx"][5].startswith("built, not run")
    assert engines["jetson-nano"][1:] == ["not built", *["not measured"] * 3, "a device builds it, after review"]
    assert "- ONNX parity: 2.3e-05 px, at most 0.001 allowed." in card
    data = rows_of(card, "Data")
    assert data["faces"] == ["sloth", "1,000", "992", "8", "0", "0", "68,448", "7,936", "2,976"]
    assert data["train"] == ["800", "60", "800", "55,200", "6,400", "2,400"]
    assert data["`keypoint-outside-frame`: keypoints lie on the frame"] == ["7", "7"]
    training = rows_of(card, "Training")
    assert training["epochs"] == ["20, kept 18, validation 2.33 crop px"]
    assert training["time"][0].startswith("4 min 20 s")


def test_nobody_is_named_and_nothing_is_shown(summary, card):
    people = summary.evaluation["by_subject"]
    frames = [face.name for face in (*summary.best, *summary.worst)]
    records = [example.record for group in summary.rejections for example in group.examples]
    assert len(people) == 15 and frames and records
    assert not [name for name in (*people, *frames, *records) if name in card]
    assert not re.search(r"!\[|data:|<\w", card)


def test_a_set_that_is_one_person_is_left_out(summary):
    one, others = "made-up/000", "the others"
    evaluation = made_up_evaluation(10, sets=[one] * 2 + [others] * 8)
    apart = replace(summary, evaluation=evaluation_report(evaluation))
    card = model_card(apart)
    assert one in {part["name"] for part in apart.evaluation["slices"]["set"]}
    assert one not in card and others in rows_of(card, "By set")
    assert re.search(r"one subject or one face makes them up: \d", card)


def test_a_rerun_that_finds_everything_gives_the_same_card(summary, card):
    again = replace(summary, run_id="later", started_at="2026-02-02", seconds=3.0, steps=())
    assert model_card(replace(again, git_commit="5eed", code_version="0.2.0")) == card


def test_text_from_data_is_no_markup(summary):
    odd = deepcopy(summary.evaluation)
    odd["slices"]["set"][0]["name"] = "a|b <img> *c*\n# d"
    card = model_card(replace(summary, evaluation=odd))
    assert r"| a\|b \<img\> \*c\* \# d | 12 |" in card


def test_weak_kinds_of_faces_are_named_where_their_intervals_tell(summary):
    report = deepcopy(summary.evaluation)
    for part in report["slices"]["set"]:
        cell = part["regions"]["All"]["crop_px"]["all"]
        cell |= {"error": 4.0, "low": 3.5, "high": 5.0} if part["name"] == "two" else {"low": 0.1, "high": 9.0}
    told = limits_of(replace(summary, evaluation=report))
    two = "Worse on set two, 18 faces of 9 subjects: 4.00 (3.50 to 5.00) crop px; all faces 1.49 (1.45 to 1.52)."
    assert two in told and "Worse on set one" not in told
    assert "where the intervals are widest: set one (0.10 to 9.00 crop px, 6 subjects); set two" in told
    assert "No kind of faces is shown to be worse" in limits_of(summary)


def test_intervals_of_few_subjects_are_called_too_narrow(summary):
    assert "too narrow everywhere: fewer than 20 subjects, 15, are in the KPI set." in limits_of(summary)
    many = summary.evaluation | {"subjects": 40}
    told = limits_of(replace(summary, evaluation=many))
    assert (
        "fewer than 20 subjects: yaw 15° to 30° (3), yaw 30° to 45° (3), yaw most turned fifth (6) and 3 more."
        in told
    )


def test_what_was_not_measured_is_told(summary):
    told = limits_of(summary)
    for words in (
        "rtx engine's own parity and speed. It was built and not run: no GPU.",
        "Not built yet, so not measured: jetson-nano.",
        "with occlusion",
        "boxes of a detector",
        "The gate says failed",
    ):
        assert words in told
    assert "over 60°" not in told and "confidence is worth" not in told
    report = deepcopy(summary.evaluation)
    report["slices"]["yaw"] = [part for part in report["slices"]["yaw"] if part["name"] != "over 60°"]
    report |= {"confidence": {}, "faces_without_subject": 2, "unreachable_share": 0.00312}
    silent = replace(summary.sources[0], kind="rendered", points={"visible": 0, "occluded": 0, "unknown": 5})
    splits = tuple(replace(split, nameless=4) for split in summary.splits)
    passed = replace(summary.verdict, state="passed", blocks=False, champion=None)
    bare = replace(
        summary, evaluation=report, sources=(silent,), splits=splits, engines=(), later=(), gates=(), verdict=passed
    )
    told = limits_of(bare)
    for words in (
        "faces turned by over 60°",
        "what the confidence is worth",
        "No intervals: 2 KPI faces",
        "0.312 % of the KPI points lie beyond the crop's outermost pixel centres, where no network puts one",
        "All of the faces are rendered",
        "No flags from faces",
        "8 faces that were learnt from do not say whose they are",
    ):
        assert words in told
    assert "The gate" not in told
    card = model_card(bare)
    for section, words in (("Engines", "ONNX against Keras: not measured"), ("Confidence", "Not measured.")):
        assert words in card.partition(f"# {section}")[2]
    assert "None was built." in card and "| gate | passed; no champion, so by the absolute bounds |" in card


def test_any_number_of_points_has_a_card(tmp_path):
    card = model_card(made_up_summary(tmp_path, num_keypoints=5))
    assert "Finds 5 keypoints" in card and "NVIDIA" not in card and "By yaw" not in card
    assert "has no nose and eyes to tell it by" in card


def test_the_spec_is_told_in_short(summary):
    candidate = made_up_candidate(80)
    spec = deepcopy(dict(candidate.spec))
    spec["dataloader"]["augmentation_info"] |= {
        "enable_online_augmentation": True,
        "enable_occlusion_augmentation": True,
        "patch_probability": 0.25,
        "occluder_probability": 0.3,
        "enable_resize_augmentation": True,
        "augmentation_resize_probability": 0.1,
        "augmentation_resize_scale": 0.5,
        "gamma_augmentation": {"gamma_type": "normal", "gamma_probability": 0.5},
        "modulus_spatial_augmentation": {
            "hflip_probability": 0.5,
            "rotate_rad_max": 0.3,
            "translate_max_x": 2.0,
            "zoom_max": 1.1,
        },
    }
    spec["loss"] |= {"loss_type": "wing_loss", "mask_occ": True, "visibility_coeff": 0.5, "heatmap_coeff": 1.0}
    spec["loss"]["elt_loss_info"] = {
        "enable_elt_loss": True,
        "unlabelled_sets": "more",
        "modulus_spatial_augmentation": {"rotate_rad_max": 0.2},
    }
    spec["model"]["model_parameters"] |= {
        "type": "ResidualUNet",
        "width": 32,
        "map_stride": 4,
        "confidence": "visibility",
        "pretrained_model_path": "old.keras",
    }
    spec["training_precision"] = "bfloat16"
    history = tuple(row | {"validation_error_px": None} for row in summary.history)
    card = model_card(replace(summary, candidate=replace(candidate, spec=spec, git_commit=None), history=history))
    assert "the chance that the point is not occluded (`visibility`)" in card and "`peak`" not in card
    assert rows_of(card, "What it is")["network"] == ["ResidualUNet, width 32, map_stride 4"]
    training = rows_of(card, "Training")
    assert training["augmentation"] == [
        "mirrored (50 %), rotated by up to 17°, shifted by up to 2 px across and 0 px down, zoomed by 1 to 1.1, "
        "gamma around 1, standard deviation 0.3 (50 %), scaled by 0.5 and back (10 %), a patch of one grey in front "
        "(25 %), an occluder in front (30 %)"
    ]
    assert training["loss"] == [r"wing\_loss, heatmap × 1, visibility × 0.5; occluded points masked"]
    assert training["ELT"] == ["elt_alpha 0.5, rotated by up to 11°, 50 % of a batch without labels"]
    assert training["batch"] == ["64 faces, 32 of them without labels"]
    assert training["precision"] == ["bfloat16"] and training["weights"] == ["from a pretrained model, seed 42"]
    assert training["epochs"] == ["20, kept 18; there were no validation faces"]
    assert "commit not known" in card
