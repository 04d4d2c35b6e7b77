"""A key from the command line to the files: what is encrypted, what it opens, and that it is written nowhere."""

import json
import logging
import re
from pathlib import Path

import pytest

import schemas.sealed
from flows.entry.cli import main
from schemas.sealed import is_sealed
from schemas.yamlspec import dump_spec
from tests.shard_files import blob_face, small_spec, write_images, write_shard

KEY = "a-key_nobody:else=has"
SETS = {"a": range(0, 8), "b": range(8, 12), "c": range(12, 16)}


@pytest.fixture(autouse=True, scope="module")
def quick_derivation():
    """The derivation's cost is not what these tests are about; a file says what it took."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schemas.sealed, "SCRYPT", {"n": 1024, "r": 8, "p": 1})
        yield


@pytest.fixture(autouse=True)
def no_key_around(monkeypatch):
    monkeypatch.delenv("FPENET_KEY", raising=False)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("keys")
    for set_id, indices in SETS.items():
        faces = [blob_face(i) for i in indices]
        write_shard(root / set_id / "records" / "data.tfrecords", faces)
        write_images(root / "frames", faces)
    text = dump_spec(small_spec()).replace("tfrecords_directory_path: .", f"tfrecords_directory_path: {root}")
    (root / "spec.yaml").write_text(text)
    entries = []
    for face in faces:
        sides = zip(("x", "y", "width", "height"), map(float, face.box), strict=True)
        chunk = {"class": "FaceBbox", **{f"face_tight_bbox{side}": value for side, value in sides}}
        entries.append({"class": "image", "filename": face.name, "annotations": [chunk]})
    (root / "faces.json").write_text(json.dumps(entries))
    return root


@pytest.fixture(scope="module")
def trained(project) -> tuple[Path, str]:
    """Results of a training with the key, and what it logged."""
    results, records = project / "results", project / "log.txt"
    handler = logging.FileHandler(records)
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.DEBUG)
    try:
        assert main(["train", "-e", str(project / "spec.yaml"), "-r", str(results), "-k", KEY]) == 0
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
        logging.getLogger().setLevel(logging.WARNING)
    return results, records.read_text()


def infer(project: Path, model: Path, out: str, *options: str) -> int:
    places = ["-i", str(project / "faces.json"), "-o", str(project / out), "-r", str(project / "frames")]
    return main(["inference", "-e", str(project / "spec.yaml"), "-m", str(model), *places, *options])


def test_weights_are_on_disk_in_no_other_form(trained):
    results, _ = trained
    assert is_sealed(results / "model.keras.sealed") and is_sealed(results / "checkpoint.npz.sealed")
    assert not list(results.rglob("*.keras")) and not list(results.rglob("*.npz"))
    for path in results.rglob("*"):
        if path.is_file() and not is_sealed(path):
            content = path.read_bytes()
            assert b"conv_keypoints" not in content or path.suffix in (".csv", ".yaml", ".json"), path


def test_the_whole_line_with_a_key_that_is_written_nowhere(project, trained, capfd, monkeypatch):
    results, log = trained
    assert main(["evaluate", "-m", str(results), "-k", KEY]) == 0
    model = results / "model.keras.sealed"
    monkeypatch.setenv("FPENET_KEY", KEY)
    assert main(["export", "-m", str(model), "-o", str(results / "model.etlt"), "-r", str(results)]) == 0
    onnx = results / "model.etlt.onnx.sealed"
    assert is_sealed(onnx) and not list(results.rglob("*.onnx"))
    assert infer(project, model, "out-keras") == 0
    assert infer(project, onnx, "out-onnx", "--no-images") == 0
    ours, theirs = (_points(project / out / "result.txt") for out in ("out-keras", "out-onnx"))
    assert ours == pytest.approx(theirs, abs=0.05)
    told = capfd.readouterr()
    for text in (told.out, told.err, log):
        assert KEY not in text
    encodings = [KEY.encode(encoding) for encoding in ("utf-8", "utf-16-le")]
    for path in project.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not any(encoded in content for encoded in encodings), path


def _points(path: Path) -> list[float]:
    return [float(value) for line in path.read_text().splitlines() for value in line.split()[1:]]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["evaluate", "-m", "RESULTS"], r"model\.keras\.sealed: encrypted; give the key"),
        (["evaluate", "-m", "RESULTS", "-k", "wrong"], r"model\.keras\.sealed: the key is wrong"),
        (["evaluate", "-m", "RESULTS", "-k", ""], r"model\.keras\.sealed: encrypted; give the key"),
        (
            ["evaluate", "-m", "RESULTS/checkpoint.npz.sealed", "-e", "SPEC", "-k", KEY],
            "holds a training's checkpoint",
        ),
        (["export", "-m", "RESULTS/model.keras.sealed", "-k", "wrong"], r"model\.keras\.sealed: the key is wrong"),
        (["export", "-m", "MODEL.onnx.sealed", "-k", KEY], "holds a deployable model .* needed is a trainable model"),
        (["evaluate", "-m", "BROKEN.keras.sealed", "-e", "SPEC", "-k", KEY], r"BROKEN\.keras\.sealed: damaged"),
        (["train", "-e", "SPEC", "-r", "RESULTS", "-k", "wrong"], r"checkpoint\.npz\.sealed: the key is wrong"),
        (["train", "-e", "SPEC", "-r", "RESULTS"], r"model\.keras\.sealed: is encrypted: give the key"),
    ],
)
def test_a_file_that_does_not_open_is_one_error(project, trained, capfd, command, words):
    results, _ = trained
    _broken_and_deployable(project, results)
    names = {"RESULTS": str(results), "SPEC": str(project / "spec.yaml"), "MODEL": str(project / "MODEL")}
    names["BROKEN"] = str(project / "BROKEN")
    for name, place in names.items():
        command = [word.replace(name, place) if word != KEY else word for word in command]
    assert main(command) == 2
    err = capfd.readouterr().err
    last = err.strip().splitlines()[-1]
    assert last.startswith("fpenet: error: ")
    assert re.search(words, last), last
    assert "Traceback" not in err and KEY not in err


def _broken_and_deployable(project: Path, results: Path) -> None:
    content = bytearray((results / "model.keras.sealed").read_bytes())
    content[len(content) // 2] ^= 1
    (project / "BROKEN.keras.sealed").write_bytes(content)
    schemas.sealed.write_sealed(
        project / "MODEL.onnx.sealed", b"any", schemas.sealed.Kind.DEPLOYABLE, schemas.sealed.Key(KEY)
    )


def test_the_option_wins_over_the_environment(trained, monkeypatch):
    results, _ = trained
    monkeypatch.setenv("FPENET_KEY", "wrong")
    assert main(["evaluate", "-m", str(results), "-k", KEY]) == 0
    assert main(["evaluate", "-m", str(results)]) == 2
    monkeypatch.setenv("FPENET_KEY", KEY)
    assert main(["evaluate", "-m", str(results), "-k", ""]) == 2


def test_training_goes_on_with_the_key(project, trained, capsys):
    results, _ = trained
    before = (results / "model.keras.sealed").read_bytes()
    assert main(["train", "-e", str(project / "spec.yaml"), "-r", str(results), "-k", KEY]) == 0
    assert "2 of 2" in capsys.readouterr().out
    assert (results / "model.keras.sealed").read_bytes() == before


def test_a_key_does_not_cover_up_what_was_trained_without_one(project, trained, tmp_path, capsys):
    (tmp_path / "model.keras").write_bytes(b"PK")
    assert main(["train", "-e", str(project / "spec.yaml"), "-r", str(tmp_path), "-k", KEY]) == 2
    assert "model.keras: was trained without a key" in capsys.readouterr().err


@pytest.mark.slow
def test_fine_tuning_starts_from_an_encrypted_model(project, trained, tmp_path, capsys):
    results, _ = trained
    text = (project / "spec.yaml").read_text()
    assert "pretrained_model_path: null" in text
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        text.replace("pretrained_model_path: null", f"pretrained_model_path: {results}/model.keras.sealed")
    )
    assert main(["train", "-e", str(spec), "-r", str(tmp_path / "tuned"), "-k", KEY]) == 0
    _broken_and_deployable(project, results)
    capsys.readouterr()
    spec.write_text(
        text.replace("pretrained_model_path: null", f"pretrained_model_path: {project}/MODEL.onnx.sealed")
    )
    assert main(["train", "-e", str(spec), "-r", str(tmp_path / "other"), "-k", KEY]) == 2
    assert "needed is a trainable model" in capsys.readouterr().err


def test_a_key_for_a_plain_model_is_told_not_to_be_needed(project, tmp_path, caplog):
    from model.weights import save_network
    from tests.networks import sharp_network

    save_network(sharp_network(num_keypoints=5), tmp_path / "model.keras")
    assert infer(project, tmp_path / "model.keras", "out-plain", "-k", KEY) == 0
    assert "not encrypted; the key is not needed" in caplog.text and KEY not in caplog.text
