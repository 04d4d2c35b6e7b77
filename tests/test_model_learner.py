import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.yamlspec import dump_spec
from tests.shard_files import blob_face, small_spec, write_shard

SPEC = """loss:
  loss_type: {loss}
  kpts_coeff: 0.05
  mask_occ: true
  heatmap_coeff: 1.0
  elt_loss_info: {{elt_alpha: 0.5, enable_elt_loss: true, modulus_spatial_augmentation: {{rotate_rad_max: 0.3}}}}
model: {{model_parameters: {{type: ResidualUNet, width: 4, beta: 1.0, regularizer_weight: 1.0e-2}}}}
optimizer: {{epsilon: 0.1, ema_momentum: 0.5}}
"""
"""Adam's first step is the gradient's sign but for epsilon: a large one keeps rounding errors small."""


@pytest.fixture(scope="module")
def differences(tmp_path_factory):
    """Largest relative differences between two replicas and one device, by loss; batches of 7, so of 3 and 4."""
    folder = tmp_path_factory.mktemp("replicas")
    shard, specs = write_shard(folder / "shard", [blob_face(i) for i in range(14)]), {}
    for loss in ("l1", "square_euclidean", "wing_loss"):
        specs[loss] = folder / f"{loss}.yaml"
        spec = dump_spec(small_spec(SPEC.format(loss=loss)))
        specs[loss].write_text(spec.replace("batch_size: 8", "batch_size: 7"))
    done = subprocess.run(
        [sys.executable, "-m", "tests.two_replicas", str(shard), *map(str, specs.values())],
        cwd=Path(__file__).parent.parent,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    return {loss: found[str(path)] for loss, path in specs.items()}


@pytest.mark.parametrize("loss", ["l1", "square_euclidean", "wing_loss"])
def test_a_step_of_two_replicas_is_that_of_one_device_with_the_whole_batch(differences, loss):
    far = differences[loss]
    assert far["terms"] < 1e-4 and far["gradients"] < 1e-3 and far["weights"] < 1e-4, far
