"""What `input_pipeline.py` compares with: the ordinary tf.data pipeline, one face at a time.

Every step is a handful of TensorFlow operations on one sample, in the order of the documentation: decode, crop,
resize to the network's input, then each augmentation; batched at the end. Legend: H W rows and columns, N keypoints.
"""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from schemas.experiment import ExperimentSpec
from schemas.layouts import layout


def plain_batches(path: Path, spec: ExperimentSpec, *, embedded: bool) -> tf.data.Dataset:
    """Endless batches of (image_BHWC, points_BN2, visible_BN), shuffled, augmented in parallel, prefetched.

    Args:
        embedded: decode the crop that the record holds instead of its frame's image file.
    """
    face = _Face(spec, embedded=embedded)
    records = tf.data.TFRecordDataset(str(path)).shuffle(1024).repeat()
    faces = records.map(face, num_parallel_calls=tf.data.AUTOTUNE)
    return faces.batch(spec.dataloader.batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


class _Face:
    def __init__(self, spec: ExperimentSpec, *, embedded: bool) -> None:
        self.embedded, self.root = embedded, spec.dataloader.root_path
        self.size, self.n = spec.dataloader.image_info.image.height, spec.num_keypoints
        self.augmentation = spec.dataloader.augmentation_info
        self.features = {
            "train/image_frame_name": tf.io.FixedLenFeature([], tf.string),
            **{f"train/facebbx_{side}": tf.io.FixedLenFeature([], tf.int64) for side in "xywh"},
            "train/landmarks": tf.io.FixedLenFeature([2 * self.n], tf.float32),
            "train/landmarks_occ": tf.io.FixedLenFeature([self.n], tf.int64),
        }
        if embedded:
            self.features["image/encoded"] = tf.io.FixedLenFeature([], tf.string)
            self.features["image/region"] = tf.io.FixedLenFeature([3], tf.float32)

    def __call__(self, record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        face = tf.io.parse_single_example(record, self.features)
        box_4 = tf.stack([tf.cast(face[f"train/facebbx_{side}"], tf.float32) for side in "xywh"])
        image = self._crop(face, box_4)
        points = (tf.reshape(face["train/landmarks"], (self.n, 2)) - box_4[:2] + 0.5) * self.size / box_4[2] - 0.5
        visible = 1.0 - tf.cast(face["train/landmarks_occ"], tf.float32)
        image = self._resized(image)
        image, visible = self._patched(image, points, visible)
        image, points, visible = self._moved(image, points, visible)
        return self._brightened(image), points, visible

    def _crop(self, face: dict[str, tf.Tensor], box_4: tf.Tensor) -> tf.Tensor:
        if self.embedded:
            pixels = tf.io.decode_png(face["image/encoded"], channels=1)
            scale = 160.0 / face["image/region"][2]
            box_4 = tf.concat([(box_4[:2] - face["image/region"][:2]) * scale, box_4[2:] * scale], 0)
        else:
            pixels = tf.io.decode_png(tf.io.read_file(self.root + face["train/image_frame_name"]), channels=1)
        x, y, w, h = tf.unstack(tf.cast(tf.round(box_4), tf.int32))
        crop = tf.image.crop_to_bounding_box(pixels, y, x, h, w)
        return tf.ensure_shape(tf.image.resize(crop, (self.size, self.size)), (self.size, self.size, 1))

    def _resized(self, image: tf.Tensor) -> tf.Tensor:
        other = int(self.size * self.augmentation.augmentation_resize_scale)
        return tf.cond(
            tf.random.uniform(()) < self.augmentation.augmentation_resize_probability,
            lambda: tf.image.resize(tf.image.resize(image, (other, other)), (self.size, self.size)),
            lambda: image,
        )

    def _patched(self, image: tf.Tensor, points: tf.Tensor, visible: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        def patched() -> tuple[tf.Tensor, tf.Tensor]:
            largest = self.size * self.augmentation.size_to_image_ratio
            sides = tf.floor(tf.random.uniform((2,), 10.0, largest))
            start = tf.floor(tf.random.uniform((2,)) * (self.size - sides + 1))
            along = tf.range(self.size, dtype=tf.float32)
            rows, columns = ((along >= start[i]) & (along < start[i] + sides[i]) for i in (1, 0))
            mask = rows[:, None, None] & columns[None, :, None]
            on = tf.reduce_all((points >= start - 0.5) & (points < start + sides - 0.5), axis=1)
            return tf.where(mask, tf.random.uniform((), 0.0, 255.0), image), tf.where(on, 0.0, visible)

        return tf.cond(tf.random.uniform(()) < self.augmentation.patch_probability, patched, lambda: (image, visible))

    def _moved(self, image: tf.Tensor, points: tf.Tensor, visible: tf.Tensor) -> tuple[tf.Tensor, ...]:
        spatial, centre = self.augmentation.modulus_spatial_augmentation, (self.size - 1) / 2
        mirrored = tf.random.uniform(()) < spatial.hflip_probability
        angle = tf.random.uniform((), -spatial.rotate_rad_max, spatial.rotate_rad_max)
        zoom = tf.random.uniform((), spatial.zoom_min, spatial.zoom_max)
        shift = tf.stack(
            [
                tf.random.uniform((), -spatial.translate_max_x, spatial.translate_max_x),
                tf.random.uniform((), -spatial.translate_max_y, spatial.translate_max_y),
            ]
        )
        sign, cosine, sine = tf.where(mirrored, -1.0, 1.0), zoom * tf.cos(angle), zoom * tf.sin(angle)
        linear = tf.reshape(tf.stack([cosine * sign, -sine, sine * sign, cosine]), (2, 2))
        offset = centre - tf.linalg.matvec(linear, [centre, centre]) + shift
        forward = tf.concat([tf.concat([linear, offset[:, None]], 1), [[0.0, 0.0, 1.0]]], 0)
        image = tf.raw_ops.ImageProjectiveTransformV3(
            images=image[None],
            transforms=tf.reshape(tf.linalg.inv(forward), (1, 9))[:, :8],
            output_shape=(self.size, self.size),
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="NEAREST",
        )[0]
        points = tf.matmul(points, linear, transpose_b=True) + offset
        flip = layout(self.n).flip
        points, visible = tf.cond(
            mirrored, lambda: (tf.gather(points, flip), tf.gather(visible, flip)), lambda: (points, visible)
        )
        return image, points, visible

    def _brightened(self, image: tf.Tensor) -> tf.Tensor:
        gamma = self.augmentation.gamma_augmentation
        return tf.cond(
            tf.random.uniform(()) < gamma.gamma_probability,
            lambda: 255.0 * (image / 255.0) ** tf.random.uniform((), gamma.gamma_min, gamma.gamma_max),
            lambda: image,
        )
