"""`fpenet evaluate`, from a file of records to its page."""

import json
from types import SimpleNamespace

import pytest

from flows.entry.cli import main
from model.network import build_network
from schemas.experiment import ExperimentSpec
from schemas.storage import sha256_file
from schemas.yamlspec import load_spec
from tasks.evaluate_model import evaluate_model
from tests.html_pages import Page, assert_self_contained
from tests.shard_files import blob_face, write_shard

SPEC = """
num_keypoints: 68
model: {{model_parameters: {{type: FpeNet_public, width: 4}}}}
dataloader:
  num_keypoints: 68
  batch_size: 4
  bbox_enlarge_ratio: 1.3
  dataset_info:
    tfrecords_directory_path: {folder}
    tfrecord_folder_name: records
    tfrecord_file_name: data.tfrecords
    tfrecords_set_id_train: none
    tfrecords_set_id_val: none
  kpiset_info: {{tfrecords_set_id_kpi: kpi}}
"""
FACES = 10


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A results folder with a spec and a model, beside the records of ten faces of five subjects."""
    folder = tmp_path_factory.mktemp("evaluate")
    records = folder / "kpi" / "records" / "data.tfrecords"
    write_shard(records, [blob_face(i, num_keypoints=68) for i in range(FACES)])
    results = folder / "results"
    results.mkdir()
    spec_file = results / "experiment_spec.yaml"
    spec_file.write_text(SPEC.format(folder=folder))
    spec = load_spec(ExperimentSpec, spec_file)
    build_network(spec.model.model_parameters, num_keypoints=68).save(results / "model.keras")
    return SimpleNamespace(folder=folder, results=results, spec=spec, spec_file=spec_file, records=records)


@pytest.fixture(scope="module")
def page(place):
    assert main(["evaluate", "-m", str(place.results), "-type", "kpi_testing"]) == 0
    return (place.results / "evaluation.html").read_text()


def test_the_command_leaves_the_reference_files_the_report_and_the_page(place, page):
    names = {path.name for path in place.results.iterdir()}
    assert names >= {
        "kpi_testing_all_data.json",
        "kpi_testing_error_per_point.csv",
        "kpi_testing_error_per_region.csv",
        "report.json",
        "evaluation.html",
        "figures",
    }
    assert json.loads((place.results / "report.json").read_text())["faces"] == FACES


def test_the_page_asks_for_nothing_else(page):
    assert_self_contained(page, pictures=FACES)


def test_the_page_says_what_was_measured_and_how_well(place, page):
    read = Page(page)
    assert {"regions", "slices", "curves", "confidence", "faces", "subjects", "input"} <= read.ids
    report = json.loads((place.results / "report.json").read_text())
    for expected in (
        sha256_file(place.results / "model.keras"),
        sha256_file(place.spec_file),
        str(place.records),
        f"{report['regions']['All']['crop_px']['all']['error']:.2f}",
        *report["regions"],
        *report["by_subject"],
    ):
        assert expected in read.text


def test_the_faces_done_are_told(place, tmp_path):
    told = []
    evaluate_model(
        place.results / "model.keras",
        place.spec,
        [place.records],
        tmp_path,
        spec_file=place.spec_file,
        progress=lambda done, of: told.append((done, of)),
    )
    assert told == [(4, FACES), (8, FACES), (10, FACES)]


def test_a_set_that_is_not_there_is_named_with_the_keys_to_check(place, capsys):
    missing = place.folder / "missing.yaml"
    missing.write_text(SPEC.format(folder=place.folder).replace("kpi: kpi", "kpi: gone"))
    assert main(["evaluate", "-m", str(place.results), "-e", str(missing)]) == 2
    error = capsys.readouterr().err
    assert "gone/records/data.tfrecords: no such TFRecord file" in error
    assert "tfrecords_set_id_kpi" in error


def test_only_the_kpi_sets_can_be_evaluated(place, capsys):
    assert main(["evaluate", "-m", str(place.results), "-type", "validation"]) == 2
    assert "-type validation: only kpi_testing" in capsys.readouterr().err
