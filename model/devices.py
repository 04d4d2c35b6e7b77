"""Which devices a training runs on."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from schemas.errors import InputError


def visible_strategy() -> tf.distribute.Strategy:
    """A copy of the network on each visible GPU where there are several; else the one device there is."""
    gpus = tf.config.get_visible_devices("GPU")
    return tf.distribute.MirroredStrategy() if len(gpus) > 1 else tf.distribute.get_strategy()


def use_gpus(count: int | None = None, indices: Sequence[int] | None = None) -> None:
    """Hide from this process the GPUs that it should not use. To be called before anything runs on one.

    Args:
        count: how many to use; None for all of `indices`, or all there are.
        indices: which, counted from 0; None for the first `count`.

    Raises:
        InputError: there are fewer, or the two contradict each other.
    """
    gpus = tf.config.list_physical_devices("GPU")
    chosen = chosen_gpus(count, indices, available=len(gpus))
    if len(chosen) < len(gpus):
        tf.config.set_visible_devices([gpus[index] for index in chosen], "GPU")


def chosen_gpus(count: int | None, indices: Sequence[int] | None, *, available: int) -> list[int]:
    """Indices of the GPUs that `--gpus` and `--gpu_index` ask for; all where neither is given.

    Raises:
        InputError: as `use_gpus`.
    """
    if indices is None:
        indices = range(available if count is None else count)
    indices = list(indices)
    if count is not None and count != len(indices):
        raise InputError(
            f"--gpus {count} does not go with --gpu_index {' '.join(map(str, indices))}; give one of them"
        )
    if not indices and available:
        raise InputError("--gpus 0: hide the GPUs with CUDA_VISIBLE_DEVICES= to train on the CPU")
    if len(set(indices)) < len(indices) or min(indices, default=0) < 0:
        raise InputError(f"--gpu_index {' '.join(map(str, indices))}: each GPU once, counted from 0")
    if max(indices, default=-1) >= available:
        there = "there is 1 GPU" if available == 1 else f"there are {available} GPUs"
        hint = (
            "ask for fewer"
            if available
            else "install the extra 'gpu' (README.md, Start) and see `fpenet doctor`, or leave out --gpus and "
            "--gpu_index to train on the CPU"
        )
        raise InputError(f"GPU {max(indices)} was asked for and {there}, counted from 0; {hint}")
    return indices
