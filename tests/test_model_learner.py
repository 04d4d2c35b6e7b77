import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.yamlspec import dump_spec
from tests.shard_files import blob_face, small_spec, write_shard

STEP = """loss:
  loss_type: {loss}
  kpts_coeff: 0.05
  mask_occ: true
  heatmap_coeff: 1.0
  elt_loss_info: {{elt_alpha: 0.5, enable_elt_loss: true, modulus_spatial_augmentation: {{rotate_rad_max: 0.3}}}}
model: {{model_parameters: {{type: ResidualUNet, width: 4, beta: 1.0, regularizer_weight: 1.0e-2}}}}
optimizer: {{epsilon: 0.1, ema_momentum: 0.5}}
"""
"""Adam's first step is the gradient's sign but for epsilon: a large one keeps rounding errors small."""

RESUME = """model: {model_parameters: {type: ResidualUNet, width: 4, dropout_rate: 0.5}}
optimizer: {ema_momentum: 0.5}
enable_visualization: false
"""


def on_two_replicas(check: str, folder: Path, specs: dict[str, str]) -> dict[str, dict]:
    """Run `tests.two_replicas`; batches of 7 faces, so of 3 and 4."""
    shard, paths = write_shard(folder / "shard", [blob_face(i) for i in range(14)]), {}
    for name, text in specs.items():
        paths[name] = folder / f"{name}.yaml"
        paths[name].write_text(dump_spec(small_spec(text)).replace("batch_size: 8", "batch_size: 7"))
    done = subprocess.run(
        [sys.executable, "-m", "tests.two_replicas", check, str(shard), *map(str, paths.values())],
        cwd=Path(__file__).parent.parent,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    return {name: found[str(path)] for name, path in paths.items()}


@pytest.fixture(scope="module")
def differences(tmp_path_factory):
    specs = {loss: STEP.format(loss=loss) for loss in ("square_euclidean", "wing_loss")}
    return on_two_replicas("step", tmp_path_factory.mktemp("replicas"), specs)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["square_euclidean", "wing_loss"])
def test_a_step_of_two_replicas_is_that_of_one_device_with_the_whole_batch(differences, loss):
    """One loss that sums over the batch, one that averages."""
    far = differences[loss]
    assert far["terms"] < 1e-4 and far["gradients"] < 1e-3 and far["weights"] < 1e-4, far


@pytest.mark.slow
def test_a_training_on_two_replicas_resumes_as_if_it_had_not_stopped(tmp_path):
    """Every replica has dropout masks of its own, which a checkpoint brings back too; a step takes 2 x 7 faces."""
    found = on_two_replicas("resume", tmp_path, {"resume": RESUME})["resume"]
    assert found == {"weights": 0.0, "resumed_after": 1, "steps": 2}
