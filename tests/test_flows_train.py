"""`fpenet train` on TAO's documented experiment spec, and what it says when it can't."""

import re
from dataclasses import replace
from pathlib import Path

from flows.entry.cli import main
from model.weights import load_network
from schemas.experiment import ExperimentSpec
from schemas.yamlspec import load_spec
from tests.shard_files import BlobFace, blob_face, write_images, write_shard

SPEC = Path(__file__).parent / "data" / "tao_experiment_spec.yaml"
SET = "s578-usercalibration-incar-0"


def tao_spec(folder: Path, **changes: str) -> Path:
    """The documented spec with other places, sizes that fit a test, and `changes` of keys wherever they stand."""
    text = SPEC.read_text().replace("/workspace/tao-experiments/models/tfrecords", f"{folder}/tfrecords")
    text = text.replace("root_path: /workspace/tao-experiments/", f"root_path: {folder}/frames/")
    text = text.replace("/workspace/tlt-expertiments/fpenet/", f"{folder}/results")
    for key, value in ({"batch_size": "4", "num_epoch": "1"} | changes).items():
        text, count = re.subn(rf"(?m)^( *){key}: .*$", rf"\g<1>{key}: {value}", text)
        assert count == 1, f"{key} stands {count} times in the spec"
    path = folder / "spec.yaml"
    path.write_text(text)
    return path


def tao_face(index: int) -> BlobFace:
    face = blob_face(index, num_keypoints=80, ratio=1.0)
    return replace(face, flags_N=abs(face.flags_N))


def test_taos_documented_spec_trains(tmp_path, capsys):
    """Records as TAO writes them, one set named for training and validation; but no .tlt to start from."""
    faces = [tao_face(i) for i in range(9)]
    write_images(tmp_path / "frames", faces)
    write_shard(tmp_path / "tfrecords" / SET / "FpeTfRecords" / "data.tfrecords", faces, tao_only=True)
    spec = tao_spec(tmp_path, pretrained_model_path="null")
    assert main(["train", "-e", str(spec), "--allow-unknown-subjects"]) == 0
    told = capsys.readouterr().out
    assert "named for training and for validation" in told and "epoch 1 of 1, validation" in told
    results = tmp_path / "results"
    assert {path.name for path in results.iterdir()} >= {
        "model.keras",
        "status.json",
        "events",
        "experiment_spec.yaml",
    }
    assert load_network(results / "model.keras").output_shape[0] == (None, 80, 2)


def test_a_training_that_is_refused_leaves_the_folder_s_spec_alone(tmp_path, capsys):
    """`evaluate -m FOLDER` reads it: it belongs to the model beside it."""
    write_shard(tmp_path / "tfrecords" / SET / "FpeTfRecords" / "data.tfrecords", [tao_face(i) for i in range(9)])
    spec, results = tao_spec(tmp_path, pretrained_model_path="null"), tmp_path / "elsewhere"
    train = ["train", "-e", str(spec), "-r", str(results)]
    assert main([*train, "-k", "secret"]) == 0
    kept = (results / "experiment_spec.yaml").read_text()
    assert load_spec(ExperimentSpec, results / "experiment_spec.yaml").checkpoint_dir == str(results)
    tao_spec(tmp_path, pretrained_model_path="null", beta="0.02")
    for key, reason in (([], "is encrypted"), (["-k", "secret"], "remove this file to start anew")):
        assert main([*train, *key]) == 2
        assert reason in capsys.readouterr().err
        assert (results / "experiment_spec.yaml").read_text() == kept


def test_what_the_kpi_is_measured_on_is_not_trained_on(tmp_path, capsys):
    """Neither the set itself nor the subjects that the KPI set's records name."""
    faces, kpi = [tao_face(i) for i in range(4)], SET.replace("incar-0", "incar-1")
    for name, part in ((SET, faces), (kpi, faces[:1])):
        write_shard(tmp_path / "tfrecords" / name / "FpeTfRecords" / "data.tfrecords", part)
    assert main(["train", "-e", str(tao_spec(tmp_path, pretrained_model_path="null"))]) == 2
    assert f"KPI subject {faces[0].subject} must not be trained on" in capsys.readouterr().err
    for place in ("train", "val"):
        names = {"tfrecords_set_id_train": "a", "tfrecords_set_id_val": "b", "tfrecords_set_id_kpi": f"{SET} c"}
        names |= {f"tfrecords_set_id_{place}": SET}
        assert main(["train", "-e", str(tao_spec(tmp_path, pretrained_model_path="null", **names))]) == 2
        told = capsys.readouterr().err
        assert f"tfrecords_set_id_kpi: {SET} is in dataset_info.tfrecords_set_id_{place} too" in told


def test_a_set_for_training_and_for_the_kpi_can_be_allowed(tmp_path, capsys):
    """Its own subjects are learnt from then; those of the other KPI set still are not."""
    faces, kpi = [tao_face(i) for i in range(5)], SET.replace("incar-0", "incar-1")
    names = {"tfrecords_set_id_train": SET, "tfrecords_set_id_val": "val", "tfrecords_set_id_kpi": f"{SET} {kpi}"}
    spec = tao_spec(tmp_path, pretrained_model_path="null", **names)
    for other, code in ((faces[0], 2), (faces[4], 0)):
        for name, part in ((SET, faces[:3]), ("val", faces[3:4]), (kpi, [other])):
            write_shard(tmp_path / "tfrecords" / name / "FpeTfRecords" / "data.tfrecords", part)
        assert main(["train", "-e", str(spec), "--allow-unknown-subjects"]) == code
        told = capsys.readouterr()
        assert f"{SET} is in dataset_info.tfrecords_set_id_train too" in " ".join(told.out.split())
        assert (f"KPI subject {other.subject} must not be trained on" in told.err) == (code == 2)


def test_faces_converted_with_another_ratio_are_told(tmp_path, capsys):
    for ratio, told in ((1.2, "bbox_enlarge_ratio of about 1.1"), (1.0, None)):
        faces = [blob_face(i, num_keypoints=80, ratio=ratio) for i in range(4)]
        write_shard(tmp_path / "tfrecords" / SET / "FpeTfRecords" / "data.tfrecords", faces, tao_only=True)
        spec = tao_spec(tmp_path, pretrained_model_path="null", tfrecords_set_id_val="none")
        assert main(["train", "-e", str(spec)]) == 2, "the validation set is not there"
        out = " ".join(capsys.readouterr().out.split())
        assert told in out if told else "bbox_enlarge_ratio" not in out


def test_a_pretrained_model_that_cant_be_read_is_told_with_its_line(tmp_path, capsys):
    line = next(i for i, text in enumerate(SPEC.read_text().splitlines(), 1) if "pretrained_model_path" in text)
    for path, reason in (("/models/public.tlt", "only NVIDIA's container has"), ("/no.hdf5", "no such model file")):
        spec = tao_spec(tmp_path, pretrained_model_path=path)
        assert main(["train", "-e", str(spec)]) == 2
        told = capsys.readouterr().err
        assert f"{spec}:{line}: model.model_parameters.pretrained_model_path: {path}: " in told and reason in told


def test_gpus_that_are_not_there(tmp_path, capsys):
    spec = tao_spec(tmp_path, pretrained_model_path="null")
    assert main(["train", "-e", str(spec), "--gpus", "99"]) == 2
    assert "GPU 98 was asked for" in capsys.readouterr().err
    assert main(["train", "-e", str(spec), "--gpus", "1", "--gpu_index", "0", "1"]) == 2
    assert "--gpus 1 does not go with --gpu_index 0 1" in capsys.readouterr().err


def test_records_for_fewer_keypoints_than_the_spec_asks(tmp_path, capsys):
    faces = [blob_face(i, num_keypoints=68) for i in range(4)]
    write_shard(tmp_path / "tfrecords" / SET / "FpeTfRecords" / "data.tfrecords", faces)
    assert main(["train", "-e", str(tao_spec(tmp_path, pretrained_model_path="null"))]) == 2
    assert "has 68 keypoints, the spec 80" in capsys.readouterr().err


def unlabelled(name: str) -> dict[str, str]:
    return {"enable_elt_loss": f"true\n    unlabelled_sets: {name}"}


def test_what_the_kpi_is_measured_on_is_no_set_without_labels_either(tmp_path, capsys):
    names = {"tfrecords_set_id_kpi": "web c"} | unlabelled("web")
    assert main(["train", "-e", str(tao_spec(tmp_path, pretrained_model_path="null", **names))]) == 2
    told = capsys.readouterr().err
    assert "tfrecords_set_id_kpi: web is in loss.elt_loss_info.unlabelled_sets too" in told


def test_a_set_without_labels_is_read_where_the_others_are(tmp_path, capsys):
    faces = [tao_face(i) for i in range(4)]
    write_shard(tmp_path / "tfrecords" / SET / "FpeTfRecords" / "data.tfrecords", faces)
    spec = tao_spec(tmp_path, pretrained_model_path="null", **unlabelled("web"))
    assert main(["train", "-e", str(spec)]) == 2
    assert f"{tmp_path}/tfrecords/web/FpeTfRecords/data.tfrecords: no such TFRecord file" in capsys.readouterr().err


def test_a_place_for_the_results_is_needed(tmp_path, capsys):
    assert main(["train", "-e", str(tao_spec(tmp_path, checkpoint_dir="null"))]) == 2
    assert "spec.yaml: checkpoint_dir: is not set; set it, or give -r" in " ".join(capsys.readouterr().err.split())
