import pytest
import tensorflow as tf

from model.devices import chosen_gpus, use_gpus, visible_strategy
from schemas.errors import InputError


@pytest.mark.parametrize(
    ("count", "indices", "available", "chosen"),
    [
        (None, None, 3, [0, 1, 2]),
        (2, None, 3, [0, 1]),
        (None, [2, 0], 3, [2, 0]),
        (1, [2], 3, [2]),
        (None, None, 0, []),
        (0, None, 0, []),
    ],
)
def test_gpus_are_chosen_by_number_or_by_index(count, indices, available, chosen):
    assert chosen_gpus(count, indices, available=available) == chosen


@pytest.mark.parametrize(
    ("count", "indices", "available", "message"),
    [
        (
            1,
            None,
            0,
            "GPU 0 was asked for and there are 0 GPUs, .*leave out --gpus and --gpu_index to train on the CPU",
        ),
        (3, None, 1, "GPU 2 was asked for and there is 1 GPU, counted from 0; ask for fewer"),
        (None, [0, 4], 4, "GPU 4 was asked for and there are 4 GPUs"),
        (1, [0, 1], 2, "--gpus 1 does not go with --gpu_index 0 1"),
        (None, [1, 1], 2, "each GPU once"),
        (None, [-1], 2, "counted from 0"),
        (0, None, 2, "CUDA_VISIBLE_DEVICES= to train on the CPU"),
    ],
)
def test_gpus_that_are_not_there_are_refused(count, indices, available, message):
    with pytest.raises(InputError, match=message):
        chosen_gpus(count, indices, available=available)


def test_this_machine_trains_on_every_gpu_it_has():
    gpus = len(tf.config.list_physical_devices("GPU"))
    use_gpus()
    assert visible_strategy().num_replicas_in_sync == max(1, gpus)
    with pytest.raises(InputError, match="was asked for"):
        use_gpus(gpus + 1)
