from functools import partial
from pathlib import Path

import pytest

from schemas.config import DatasetConvertSpec, WorkflowConfig, load_config
from schemas.errors import SpecError
from schemas.experiment import ExperimentSpec
from schemas.yamlspec import dump_spec, load_spec, parse_spec, place_in

DATA = Path(__file__).parent / "data"
MINIMAL = "sources: [{kind: sloth, name: faces, root: there}]\nexperiment_spec: spec.yaml\n"
_BOMB = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9))


def test_tao_s_documented_experiment_spec_loads_as_it_stands():
    spec = load_spec(ExperimentSpec, DATA / "tao_experiment_spec.yaml")
    assert spec.model.model_parameters.type == "FpeNet_public"
    assert spec.loss.loss_type == "square_euclidean"
    assert spec.loss.elt_loss_info.modulus_spatial_augmentation.rotate_rad_max == 0.35
    assert spec.dataloader.kpiset_info.tfrecords_set_id_kpi == "s578-usercalibration-incar-1"
    assert spec.optimizer.learning_rate_schedule.min_learning_rate == 1e-7


def test_tao_s_documented_dataset_spec_loads_as_it_stands():
    spec = load_spec(DatasetConvertSpec, DATA / "tao_dataset_config.yaml")
    assert spec.sets == ["dataset1", "dataset2"]


def test_a_dumped_spec_reads_back_equal():
    spec = load_spec(ExperimentSpec, DATA / "tao_experiment_spec.yaml")
    assert parse_spec(ExperimentSpec, dump_spec(spec), "dump") == spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("num_epochs: 3", r"spec:1: num_epochs: unknown key \(did you mean 'num_epoch'\?\)"),
        ("loss: {kpts_coef: 1.0}", r"spec:1: loss.kpts_coef: unknown key \(did you mean 'kpts_coeff'\?\)"),
        ("num_epoch: many", "spec:1: num_epoch: input should be a valid integer, not 'many'"),
        ("num_epoch: 0", "spec:1: num_epoch: input should be greater than 0, not 0"),
        ("num_epoch: 3\nnum_epoch: 4", "spec:2: key 'num_epoch' is given twice"),
        ("a: [1", "spec:.*not YAML"),
        ("checkpoint_dir: here\nnum_epoch: 2001-13-45", "spec:2:12: not YAML: month must be in 1..12"),
        ("checkpoint_dir: here\nnum_epoch: !!bool maybe", "spec:2:12: not YAML: 'maybe' is no bool"),
        ("checkpoint_dir: here\nnum_epoch: !!int ''", "spec:2:12: not YAML: '' is no int"),
        ("checkpoint_dir: here\nnum_epoch: !!float ''", "spec:2:12: not YAML: '' is no float"),
        ("checkpoint_dir: here\nnum_epoch: !!timestamp x", "spec:2:12: not YAML: 'x' is no timestamp"),
        ("checkpoint_dir: here\nnum_epoch: \x01", "spec:2: not YAML: has the character #x01"),
        ("? [a, b]\n: 3", "spec:1: a key must be a word, not a list"),
        ("hooks: &all [*all]", "spec: is nested too deeply, or has an alias inside"),
        (_BOMB, "spec: holds more than 100,000 values, with what its aliases stand for"),
        ("loss: {kpts_coeff: .inf}", "loss.kpts_coeff: input should be a finite number, not inf"),
        ("loss: {kpts_coeff: .nan}", "loss.kpts_coeff: input should be a finite number, not nan"),
        ("- a list", "spec: holds list, not a mapping"),
        ("hooks: {a: 1}", "hooks: input should be None"),
        ("num_keypoints: 6800000", "spec:1: num_keypoints: input should be less than or equal to 1000, not 6800000"),
        ("num_keypoints: 68", "num_keypoints is 68 here and 80 in dataloader"),
        ("loss: {weights_dict: {face: 0.5, eyes: 0.4, mouth: 0.3}}", "must sum to 1, not 1.2"),
        ("loss: {weights_dict: {face: 0.5, eyes: 0.3, mouth: 0.21}}", "must sum to 1, not 1.01"),
        ("loss: {weights_dict: {face: 0.5, eyes: 0.5}}", "weights_dict lacks mouth"),
        ("loss: {elt_loss_info: {unlabelled_sets: a}}", "unlabelled_sets are used by ELT alone"),
        (
            "loss: {elt_loss_info: {enable_elt_loss: true, elt_alpha: 0, unlabelled_sets: a}}",
            "unlabelled_sets are used by ELT alone",
        ),
        ("dataloader: {bbox_enlarge_ratio: 0.9}", "bbox_enlarge_ratio: input should be greater than or equal to 1"),
        ("loss: {unflagged_are_visible: true}", "unflagged_are_visible is used by visibility_coeff alone"),
        (
            "dataloader: {augmentation_info: {occluder_probability: 0.3}}",
            "spec:1: dataloader.augmentation_info: occluder_probability is a part of enable_online_augmentation",
        ),
        ("model: {model_parameters: {type: FpeNet_huge}}", "FpeNet_public"),
        ("model: {model_parameters: {use_upsampling_layer: true}}", "must be false: FpeNet_public has transposed"),
        ("model: {model_parameters: {use_less_face_layers: true}}", "use_less_face_layers: input should be False"),
        (
            "model: {model_parameters: {visualization_parameters: {}}}",
            "visualization_parameters: input should be None",
        ),
        ("model: {visualization_parameters: {}}", "model.visualization_parameters: input should be None"),
        ("model: {model_parameters: {regularizer_type: l3}}", "regularizer_type: input should be 'l1' or 'l2'"),
        ("infrequent_summary_every_n_steps: 5", "infrequent_summary_every_n_steps: input should be 0"),
        ("visualize_num_images: -1", "visualize_num_images: input should be greater than or equal to 0"),
        ("log_every_n_secs: 0", "log_every_n_secs: input should be greater than 0"),
        ("optimizer: {__class_name__: SGD}", "input should be 'AdamOptimizer'"),
        (
            "optimizer: {learning_rate_schedule: {soft_start: 0.6, annealing: 0.3}}",
            "learning_rate_schedule: soft_start 0.6 is above annealing 0.3",
        ),
        (
            "optimizer: {learning_rate_schedule: {base_learning_rate: 1.0e-8}}",
            "learning_rate_schedule: min_learning_rate 1e-07 is above base_learning_rate 1e-08",
        ),
        ("loss: {visibility_coeff: 1.0}", "set both model_parameters.confidence: visibility and a visibility_coeff"),
        ("model: {model_parameters: {confidence: visibility}}", "set both model_parameters.confidence: visibility"),
        (
            "model: {model_parameters: {map_stride: 4}}",
            "map_stride must be 1: FpeNet_public makes no maps that",
        ),
        ("model: {model_parameters: {type: ResidualUNet, map_stride: 1}}", "map_stride must be 2 or 4"),
        ("model: {model_parameters: {type: ResidualUNet, map_stride: 4, width: 9}}", "width must be even"),
        ("checkpoint_n_epoch: 41", "checkpoint_n_epoch 41 is above num_epoch 40"),
        (
            "dataloader: {augmentation_info: {modulus_spatial_augmentation: {zoom_min: 1.2, zoom_max: 0.8}}}",
            "zoom_min 1.2 is above zoom_max 0.8",
        ),
        (
            "dataloader: {augmentation_info: {gamma_augmentation: {gamma_min: 1.6, gamma_max: 0.6}}}",
            "gamma_min 1.6 is above gamma_max 0.6",
        ),
        (
            "dataloader: {image_info: {image: {height: 80, width: 96}}}",
            "squares of a multiple of 16 pixels, not 96 x 80",
        ),
        (
            "loss: {elt_loss_info: {enable_elt_loss: true, elt_alpha: 0.5, unlabelled_sets: a}}\n"
            "dataloader: {batch_size: 1}",
            "batch_size must be above 1 for a batch to hold labelled and unlabelled faces",
        ),
        (
            "num_keypoints: 10\nloss: {weights_dict: {face: 0.4, eyes: 0.3, mouth: 0.3}}\n"
            "dataloader: {num_keypoints: 10}",
            "weights_dict must be null with 10 keypoints",
        ),
    ],
)
def test_a_bad_spec_says_what_where_and_which_key_was_meant(text, message):
    if "dataloader" not in text and not text.startswith("-"):
        text += "\ndataloader: {}"
    with pytest.raises(SpecError, match=message):
        parse_spec(ExperimentSpec, text, "spec")


def test_a_key_of_a_spec_has_a_place():
    path = DATA / "tao_experiment_spec.yaml"
    line = path.read_text().splitlines().index("    beta: 0.01") + 1
    assert place_in(path, "model.model_parameters.beta") == f"{path}:{line}: model.model_parameters.beta"


def test_every_problem_of_a_spec_is_told_at_once():
    with pytest.raises(SpecError) as error:
        parse_spec(ExperimentSpec, "dataloader: {batch_size: -1}\nnum_epochs: 3", "spec")
    assert "spec:1: dataloader.batch_size" in str(error.value)
    assert "spec:2: num_epochs" in str(error.value)


def test_a_weight_needs_points_to_weigh():
    text = "num_keypoints: %d\nloss: {weights_dict: {face: 0.2, eyes: 0.3, mouth: 0.3, pupil: 0.2}}\n"
    text += "dataloader: {num_keypoints: %d}"
    with pytest.raises(SpecError, match="weights_dict weighs pupil, but 68 keypoints have none"):
        parse_spec(ExperimentSpec, text % (68, 68), "spec")
    for n in (80, 104):
        assert parse_spec(ExperimentSpec, text % (n, n), "spec").loss.weights_dict["pupil"] == 0.2


def test_mirroring_needs_a_known_face():
    text = (
        "num_keypoints: 10\ndataloader:\n  num_keypoints: 10\n  augmentation_info:\n"
        "    modulus_spatial_augmentation: {hflip_probability: 0.5}"
    )
    with pytest.raises(SpecError, match="only 68, 80 and 104 can be mirrored"):
        parse_spec(ExperimentSpec, text, "spec")
    moved = "loss: {elt_loss_info: {modulus_spatial_augmentation: {hflip_probability: 0.5}}}"
    with pytest.raises(SpecError, match="elt_loss_info must be 0 with 10 keypoints"):
        parse_spec(ExperimentSpec, f"num_keypoints: 10\ndataloader: {{num_keypoints: 10}}\n{moved}", "spec")


def test_what_keys_mean_that_are_left_out():
    """The same in every release, or a file would train another model; and nothing of ours acts."""
    spec = parse_spec(ExperimentSpec, "dataloader: {}", "spec")
    loss, parameters, schedule = spec.loss, spec.model.model_parameters, spec.optimizer.learning_rate_schedule
    assert (spec.num_epoch, spec.checkpoint_n_epoch, spec.random_seed, spec.num_keypoints) == (40, 1, 42, 80)
    assert (loss.loss_type, loss.kpts_coeff, loss.mask_occ, loss.weights_dict) == ("l1", 0.01, False, None)
    assert (schedule.soft_start, schedule.annealing, schedule.base_learning_rate) == (0.3, 0.5, 5e-4)
    assert (loss.heatmap_coeff, loss.visibility_coeff, spec.unlabelled_in_batch) == (0, 0, 0)
    assert (spec.dataloader.bbox_enlarge_ratio, spec.training_precision) == (1.0, "float32")
    assert (parameters.width, parameters.confidence, parameters.stride_of_maps) == (64, "peak", 1)


def test_set_lists_are_separated_by_spaces():
    info = load_spec(ExperimentSpec, DATA / "tao_experiment_spec.yaml").dataloader.dataset_info
    folder, file = info.tfrecord_folder_name, info.tfrecord_file_name
    root = Path(info.tfrecords_directory_path)
    assert info.files(" a  b,c ") == [root / "a" / folder / file, root / "b,c" / folder / file]


@pytest.mark.parametrize(("share", "faces"), [(0.01, 1), (0.5, 4), (0.7, 6), (0.99, 7)])
def test_a_batch_holds_labelled_and_unlabelled_faces_whatever_the_share(share, faces):
    elt = f"enable_elt_loss: true, unlabelled_sets: a, unlabelled_share: {share}"
    text = f"dataloader: {{batch_size: 8}}\nloss: {{elt_loss_info: {{{elt}}}}}"
    assert parse_spec(ExperimentSpec, text, "spec").unlabelled_in_batch == faces


def test_the_soft_start_may_end_where_annealing_begins():
    text = "dataloader: {}\noptimizer: {learning_rate_schedule: {soft_start: 0.4, annealing: 0.4}}"
    assert parse_spec(ExperimentSpec, text, "spec").optimizer.learning_rate_schedule.annealing == 0.4


@pytest.mark.parametrize("n", [68, 80, 104])
def test_scientific_notation_without_a_point_is_a_number(n):
    text = f"num_keypoints: {n}\nloss: {{kpts_coeff: 1e-2}}\ndataloader: {{num_keypoints: {n}}}"
    assert parse_spec(ExperimentSpec, text, "spec").loss.kpts_coeff == 0.01


def test_a_subject_rule_needs_one_place():
    text = MINIMAL.replace("root: there", "root: there, subject: {dataset: w300}")
    with pytest.raises(SpecError, match="exactly one of field, pattern and csv"):
        parse_spec(WorkflowConfig, text, "config")


@pytest.mark.parametrize(
    ("subject", "problem"),
    [
        ('dataset: d, pattern: "("', r"'\(' is not a regular expression"),
        ("dataset: d, pattern: '^p_'", r"'\^p_' has no group \(\?P<subject>\.\.\.\)"),
        ("csv: people.csv", "dataset is needed: the same id means another person"),
        ("pattern: '(?P<subject>x)'", "dataset is needed: the same id means another person"),
    ],
)
def test_a_subject_rule_that_could_find_nobody_or_somebody_else(subject, problem):
    text = MINIMAL.replace("root: there", f"root: there, subject: {{{subject}}}")
    with pytest.raises(SpecError, match=problem):
        parse_spec(WorkflowConfig, text, "config")


def test_an_unknown_key_inside_a_source_names_the_nearest():
    with pytest.raises(SpecError, match=r"unknown key \(did you mean 'image_root'\?\)"):
        parse_spec(WorkflowConfig, MINIMAL.replace("root: there", "root: there, image_rot: x"), "config")


def test_two_sources_need_two_names():
    text = MINIMAL.replace("[{", "[{kind: sloth, name: faces, root: a}, {")
    with pytest.raises(SpecError, match="source names must differ"):
        parse_spec(WorkflowConfig, text, "config")


def test_a_configuration_takes_paths_from_the_environment(tmp_path, monkeypatch):
    path = tmp_path / "config.yaml"
    path.write_text(MINIMAL.replace("there", "${FACES}") + "# ${NOT_SET} in a comment is nothing\n")
    monkeypatch.setenv("FACES", "/faces")
    assert load_config(path).sources[0].root == "/faces"
    monkeypatch.delenv("FACES")
    with pytest.raises(SpecError, match=r"config.yaml:1: the environment variable FACES is not set"):
        load_config(path)


def test_a_file_that_cant_be_read_is_named(tmp_path):
    for load in (load_config, partial(load_spec, ExperimentSpec)):
        with pytest.raises(SpecError, match=r"nowhere.yaml: can't be read: No such file"):
            load(tmp_path / "nowhere.yaml")
        (tmp_path / "config.yaml").write_bytes(f"{MINIMAL}# José\n".encode("latin-1"))
        with pytest.raises(SpecError, match=r"config.yaml: is no text in UTF-8: line 3 has the byte 0xe9; save it"):
            load(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("kind: sloth, root: a, gt: ['gt/**.json']", r"sloth.gt.0: 'gt/\*\*.json' has \*\* beside something else"),
        ("kind: sloth, root: a, gt: [/gt/a.json]", "sloth.gt.0: '/gt/a.json' is absolute"),
        ("kind: sloth, root: a, gt: []", "sloth.gt: list should have at least 1 item"),
        ("kind: pts, root: a, files: ['']", "pts.files.0: '' names no file"),
        ("kind: pts, root: a, image_suffixes: [png]", "pts.image_suffixes.0: string should match pattern"),
        ("kind: pts, root: a, image_suffixes: [.]", "pts.image_suffixes.0: string should match pattern"),
        ("kind: wflw, image_root: a, files: [/]", "wflw.files.0: '/' names no file"),
        ("kind: coco, image_root: a, files: ['/data/**.json']", r"coco.files.0: '/data/\*\*.json' has \*\* beside"),
        ("kind: label_studio_export, image_root: a, files: [./]", "label_studio_export.files.0: './' names no file"),
        (
            "kind: label_studio_export, image_root: a, files: []",
            "label_studio_export.files: list should have at least 1",
        ),
    ],
)
def test_what_can_match_no_file_is_refused_where_it_stands(source, problem):
    text = f"experiment_spec: spec.yaml\nsources:\n- {{name: faces, {source}}}"
    with pytest.raises(SpecError, match=rf"config:3: sources.0.{problem}"):
        parse_spec(WorkflowConfig, text, "config")
