"""What training does to faces at random: the part `augmentation_info` of an experiment spec, and ELT's moves.

Keys of ours are marked `(ours)`. Source: TAO's documentation of `fpenet`, "Facial Landmarks Estimation".
"""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeFloat, PositiveFloat, model_validator

from schemas.quantities import Share
from schemas.yamlspec import SpecModel


class SpatialAugmentation(SpecModel):
    """A random affine map of the crop. Radians, crop pixels and zoom factors; a factor above 1 enlarges."""

    hflip_probability: Share = 0.0
    rotate_rad_max: NonNegativeFloat = 0.0
    translate_max_x: NonNegativeFloat = 0.0
    translate_max_y: NonNegativeFloat = 0.0
    zoom_max: PositiveFloat = 1.0
    zoom_min: PositiveFloat = 1.0

    @model_validator(mode="after")
    def _ordered(self) -> SpatialAugmentation:
        if self.zoom_min > self.zoom_max:
            raise ValueError(f"zoom_min {self.zoom_min} is above zoom_max {self.zoom_max}")
        return self


class GammaAugmentation(SpecModel):
    """The exponent's distribution: `uniform` between `gamma_min` and `gamma_max`, or `normal`, the size of a normal
    number with mean `gamma_mu` and standard deviation `gamma_std` (names and defaults: the reference)."""

    gamma_max: PositiveFloat = 1.0
    gamma_min: PositiveFloat = 1.0
    gamma_mu: float = 1.0
    gamma_probability: Share = 0.0
    gamma_std: NonNegativeFloat = 0.3
    gamma_type: Literal["uniform", "normal"] = "uniform"

    @model_validator(mode="after")
    def _ordered(self) -> GammaAugmentation:
        if self.gamma_min > self.gamma_max:
            raise ValueError(f"gamma_min {self.gamma_min} is above gamma_max {self.gamma_max}")
        return self


class Augmentation(SpecModel):
    """`occluder_probability` (ours): chance that something is put in front of a face: a turned ellipse or rectangle,
    some with fingers, filled with another face of the batch or with a shade.

    With `mask_augmentation_patch` points behind a patch or an occluder count as occluded. That leaves them out of the
    loss where its `mask_occ` does so with occluded points, and does nothing else.
    """

    enable_online_augmentation: bool = False
    enable_resize_augmentation: bool = False
    augmentation_resize_probability: Share = 0.0
    augmentation_resize_scale: PositiveFloat = 1.0
    enable_occlusion_augmentation: bool = False
    patch_probability: Share = 0.0
    size_to_image_ratio: Share = 0.5
    mask_augmentation_patch: bool = False
    occluder_probability: Share = 0.0
    gamma_augmentation: GammaAugmentation = GammaAugmentation()
    modulus_spatial_augmentation: SpatialAugmentation = SpatialAugmentation()

    @model_validator(mode="after")
    def _used(self) -> Augmentation:
        if self.occluder_probability and not self.enable_online_augmentation:
            raise ValueError("occluder_probability is a part of enable_online_augmentation: set that, too")
        return self
