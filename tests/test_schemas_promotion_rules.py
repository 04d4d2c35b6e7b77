"""The rules of promotion: what comes with the package, and what a file of one's own may say."""

import pytest
import yaml

from schemas.config import WorkflowConfig
from schemas.errors import SpecError
from schemas.layouts import FACE_SIZES, layout
from schemas.promotion_rules import RULES, load_rules


def written(folder, **changes):
    path = folder / "rules.yaml"
    given = {"allowance_crop_px": {"regions": {"All": 0.1}}, "bounds_crop_px": {"All": 4.0}}
    path.write_text(yaml.safe_dump(given | changes, allow_unicode=True))
    return path


def test_the_packaged_rules_gate_every_region_of_every_face_and_every_dimension():
    rules = load_rules()
    regions = {region for size in FACE_SIZES for region in layout(size).regions}
    assert set(rules.allowance_crop_px.regions) == set(rules.bounds_crop_px) == regions
    assert None not in rules.allowance_crop_px.regions.values()
    assert set(rules.allowance_crop_px.slices) == {"yaw", "occlusion", "set", "dataset"}
    assert set(rules.small_slices.values()) == {"block"}
    assert (rules.minimum_subjects, rules.bootstrap.draws, rules.bootstrap.confidence) == (20, 2000, 0.95)


def test_a_named_slice_goes_before_its_dimension(tmp_path):
    named = {"yaw/over 60°": 0.5, "dataset/a/b": None}
    regions = {"All": 0.1}
    path = written(tmp_path, allowance_crop_px={"regions": regions, "slices": {"yaw": 0.2}, "named": named})
    allowance = load_rules(path).allowance_crop_px
    assert allowance.of_slice("yaw", "over 60°") == 0.5
    assert allowance.of_slice("yaw", "0° to 15°") == 0.2
    assert allowance.of_slice("dataset", "a/b") is None
    assert allowance.of_slice("occlusion", "none") is None, "a dimension without an allowance gates nothing"


def test_rules_are_named_by_what_they_say_not_by_their_file(tmp_path):
    copy = tmp_path / "copy.yaml"
    copy.write_text(yaml.safe_dump(yaml.safe_load(RULES.read_text()), allow_unicode=True))
    assert load_rules(copy).sha256 == load_rules().sha256
    assert load_rules(written(tmp_path)).sha256 != load_rules().sha256


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"allowance_crop_px": {"regions": {"All": 0.1, "Eye": 0.1}}}, "no region 'Eye' .did you mean 'Eyes'"),
        ({"allowance_crop_px": {"regions": {"Eyes": 0.1}}}, "All needs a number"),
        ({"allowance_crop_px": {"regions": {"All": None}}}, "All needs a number"),
        ({"allowance_crop_px": {"regions": {"All": -0.1}}}, "greater than or equal to 0"),
        ({"allowance_crop_px": {"regions": {"All": 0.1}, "slices": {"roll": 0.1}}}, "slices.roll"),
        ({"allowance_crop_px": {"regions": {"All": 0.1}, "named": {"over 60°": 0.1}}}, "write dimension/name"),
        ({"bounds_crop_px": {"Eyes": 4.0}}, "All needs a bound"),
        ({"bounds_crop_px": {"All": 0}}, "greater than 0"),
        ({"minimum_subject": 3}, "unknown key .did you mean 'minimum_subjects'"),
        ({"minimum_subjects": 1}, "greater than or equal to 2"),
        ({"small_slices": {"yaw": "shown"}}, "small_slices.yaw"),
        ({"small_slices": {"region": "show"}}, "small_slices.region"),
        ({"bootstrap": {"confidence": 1.0}}, "less than 1"),
    ],
)
def test_wrong_rules_are_refused_with_the_place_and_the_remedy(tmp_path, changes, message):
    with pytest.raises(SpecError, match=message) as error:
        load_rules(written(tmp_path, **changes))
    assert "rules.yaml:" in str(error.value)


@pytest.mark.parametrize("name", ["demo", "real-faces"])
def test_the_examples_say_which_slices_may_be_small(name):
    rules = load_rules(RULES.parents[1] / "examples" / f"{name}-rules.yaml")
    assert rules.may_be_small("yaw", "45° to 60°") and not rules.may_be_small("region", "All")
    assert rules.allowance_crop_px.named == {}


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(SpecError, match=r"nowhere\.yaml"):
        load_rules(tmp_path / "nowhere.yaml")


def test_the_configuration_names_the_file():
    assert WorkflowConfig.model_fields["promotion_rules"].default is None
