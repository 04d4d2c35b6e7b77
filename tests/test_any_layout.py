"""Gray and colour, and numbers of keypoints that are no known face: trained, measured, exported."""

import numpy as np
import pytest

from deploy.export import export_model
from deploy.predictor import load_predictor
from model.evaluation import evaluate
from model.pipeline import evaluation_batches
from model.training import train
from schemas.experiment import ExperimentSpec
from schemas.yamlspec import parse_spec
from tests.networks import crops
from tests.shard_files import blob_face, write_shard

SPEC = """num_keypoints: {n}
num_epoch: 1
model: {{model_parameters: {{type: {kind}, width: 4, beta: 1.0}}}}
loss: {{loss_type: wing_loss, elt_loss_info: {{enable_elt_loss: true}}}}
dataloader:
  batch_size: 4
  num_keypoints: {n}
  image_info: {{image: {{channel: {channels}}}}}
  augmentation_info:
    enable_online_augmentation: true
    gamma_augmentation: {{gamma_min: 0.6, gamma_max: 1.6, gamma_probability: 0.5}}
    enable_occlusion_augmentation: true
    patch_probability: 0.5
    modulus_spatial_augmentation: {{rotate_rad_max: 0.3}}
"""


@pytest.mark.parametrize(
    ("kind", "n", "channels"),
    [pytest.param("FpeNet_base", 64, 3, marks=pytest.mark.slow), ("ResidualUNet", 98, 1)],
)
def test_any_number_of_keypoints_in_gray_or_colour(kind, n, channels, tmp_path):
    spec = parse_spec(ExperimentSpec, SPEC.format(kind=kind, n=n, channels=channels), "spec")
    faces = [blob_face(i, num_keypoints=n) for i in range(10)]
    shard, kpi = write_shard(tmp_path / "shard", faces[:4]), write_shard(tmp_path / "kpi", faces[4:])
    result = train(spec, train_files=[shard], validation_files=[kpi], directory=tmp_path / "results")

    exported = export_model(result.model_path)
    images_BHWC = crops(3, channels=channels)
    keras_model, onnx = (load_predictor(path) for path in (result.model_path, exported.path))
    for predictor in (keras_model, onnx):
        predictor.require(spec)
        assert predictor.channels == channels
    for ours, theirs in zip(keras_model.predict(images_BHWC), onnx.predict(images_BHWC), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)
    measured = evaluate(keras_model.predict, evaluation_batches([kpi], spec))
    assert measured.errors.crop_px_BK.shape == (6, n)
    assert measured.errors.crop_px_BK.mean() == pytest.approx(result.best.validation_error_px, rel=1e-4)
