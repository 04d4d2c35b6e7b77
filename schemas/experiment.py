"""The experiment spec: TAO's keys for training, evaluation and inference, and a few of ours.

Keys of ours are marked `(ours)`; a spec without them means what it means to TAO. Source: TAO's documentation
of `fpenet`, "Facial Landmarks Estimation".
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from schemas.augmentation import Augmentation, SpatialAugmentation
from schemas.layouts import layout
from schemas.quantities import BoxEnlargeRatio, KeypointCount, Share
from schemas.yamlspec import SpecModel


class DatasetInfo(SpecModel):
    """Where the TFRecords are: `<tfrecords_directory_path>/<set>/<tfrecord_folder_name>/<tfrecord_file_name>`.

    The three set lists hold set ids separated by spaces, as in TAO.
    """

    root_path: str | None = None
    tfrecords_directory_path: str
    tfrecord_folder_name: str
    tfrecord_file_name: str
    tfrecords_set_id_train: str
    tfrecords_set_id_val: str
    no_occlusion_masking_sets: str | None = None
    image_extension: str | None = None
    test_file_name: str | None = None
    use_extra_dataset: Literal[False] = False

    def files(self, sets: str) -> list[Path]:
        """TFRecord files of the set ids in `sets`, which are separated by spaces."""
        root = Path(self.tfrecords_directory_path)
        return [root / set_id / self.tfrecord_folder_name / self.tfrecord_file_name for set_id in sets.split()]


class ImageShape(SpecModel):
    channel: Literal[1, 3] = 1
    height: PositiveInt = 80
    width: PositiveInt = 80

    @model_validator(mode="after")
    def _sixteenths(self) -> ImageShape:
        if self.height != self.width or self.height % 16:
            raise ValueError(
                f"the network takes squares of a multiple of 16 pixels, not {self.width} x {self.height}"
            )
        return self


class ImageInfo(SpecModel):
    image: ImageShape = ImageShape()


class KpiSetInfo(SpecModel):
    tfrecords_set_id_kpi: str


class Dataloader(SpecModel):
    """`bbox_enlarge_ratio` (ours): how much larger than the face box the network's crop is. Must be that of the
    conversion; inference enlarges its face boxes by it.

    `memory_mib` (ours): training sets whose decoded face crops take at most this much are read once, kept in memory
    and shuffled as a whole; larger ones are read again every epoch, at 64 places at once, and shuffled 8192 faces at
    a time. A gray face takes 25 kB, so that 1024 MiB hold 41,900.
    """

    class_name: Literal["FpeNetDataloader"] = Field("FpeNetDataloader", alias="__class_name__")
    augmentation_info: Augmentation = Augmentation()
    batch_size: PositiveInt = 64
    bbox_enlarge_ratio: BoxEnlargeRatio = 1.0
    dataset_info: DatasetInfo | None = None
    image_info: ImageInfo = ImageInfo()
    kpiset_info: KpiSetInfo | None = None
    memory_mib: NonNegativeInt = 1024
    num_keypoints: KeypointCount = 80

    @property
    def root_path(self) -> str:
        """Put before image names as it stands; '' where the spec names none."""
        return (self.dataset_info and self.dataset_info.root_path) or ""

    @property
    def sets_without_masking(self) -> list[str]:
        """Sets whose occluded keypoints count in the loss although `mask_occ` is on."""
        return ((self.dataset_info and self.dataset_info.no_occlusion_masking_sets) or "").split()


class EltLoss(SpecModel):
    """`unlabelled_sets` (ours): ids of sets, separated by spaces, whose faces learn by ELT alone. Their keypoints are
    never read and need not be in the records; the face box must. They lie where the other sets lie.

    `unlabelled_share` (ours): how much of every batch comes from them. The rest is labelled, and an epoch is one
    round of the labelled faces. In the other losses an unlabelled face is one whose points are all masked.
    """

    elt_alpha: NonNegativeFloat = 0.5
    enable_elt_loss: bool = False
    modulus_spatial_augmentation: SpatialAugmentation = SpatialAugmentation()
    unlabelled_sets: str | None = None
    unlabelled_share: Annotated[float, Field(gt=0, lt=1)] = 0.5

    @model_validator(mode="after")
    def _used(self) -> EltLoss:
        if self.unlabelled_sets and not (self.enable_elt_loss and self.elt_alpha):
            raise ValueError("unlabelled_sets are used by ELT alone: set enable_elt_loss, with an elt_alpha above 0")
        return self


class LossSpec(SpecModel):
    """`heatmap_coeff` (ours): weight of the cross-entropy between the soft-argmax map and a Gaussian of
    `heatmap_sigma_px` crop pixels around the true point; 0 switches it off.

    `visibility_coeff` (ours): weight of the cross-entropy between a confidence of the kind `visibility` and the
    occluded flags. Points under a patch or an occluder of the augmentation are occluded. Points without a flag take
    no part, nor does anything else of their face that is only known from the augmentation; with
    `unflagged_are_visible` they are visible, for sets in which nobody flagged points and few are hidden.
    """

    class_name: Literal["FpeLoss"] = Field("FpeLoss", alias="__class_name__")
    loss_type: Literal["l1", "square_euclidean", "wing_loss"] = "l1"
    kpts_coeff: PositiveFloat = 0.01
    mask_occ: bool = False
    weights_dict: dict[Literal["face", "eyes", "mouth", "pupil"], NonNegativeFloat] | None = None
    elt_loss_info: EltLoss = EltLoss()
    heatmap_coeff: NonNegativeFloat = 0.0
    heatmap_sigma_px: PositiveFloat = 1.5
    visibility_coeff: NonNegativeFloat = 0.0
    unflagged_are_visible: bool = False

    @model_validator(mode="after")
    def _used(self) -> LossSpec:
        if self.unflagged_are_visible and not self.visibility_coeff:
            raise ValueError("unflagged_are_visible is used by visibility_coeff alone: set one above 0")
        return self

    @model_validator(mode="after")
    def _weights(self) -> LossSpec:
        if self.weights_dict is not None:
            missing = {"face", "eyes", "mouth"} - set(self.weights_dict)
            if missing:
                raise ValueError(f"weights_dict lacks {', '.join(sorted(missing))}")
            total = sum(self.weights_dict.values())
            if abs(total - 1) > 1e-6:
                raise ValueError(f"the weights of weights_dict must sum to 1, not {total:g}")
        return self


ModelType = Literal["FpeNet_base", "FpeNet_base_5x5_conv", "FpeNet_release", "FpeNet_public", "ResidualUNet"]


TrainingPrecision = Literal["float32", "bfloat16"]


class ModelParameters(SpecModel):
    """`width` (ours): channels of a convolution, 64 in the reference; smaller is faster.

    `type: ResidualUNet` (ours): residual encoder-decoder. `map_stride` (ours): how many times smaller than the input
    its maps are, 2 by default; with 4 the width must be even. The other types' maps are as large as their input.

    `confidence` (ours): `peak` is the largest probability of the soft-argmax map, the reference's; `visibility` a
    probability that the point is not occluded, from maps of its own, which `loss.visibility_coeff` trains.

    `use_upsampling_layer` chooses for the two base types between nearest neighbour and transposed convolution; the
    others have the one or the other, so that `true` is refused where it can't act and `false` asks for nothing.
    """

    type: ModelType = "FpeNet_public"
    beta: PositiveFloat = 0.1
    confidence: Literal["peak", "visibility"] = "peak"
    width: Annotated[int, Field(ge=4, le=512)] = 64
    map_stride: Literal[1, 2, 4] | None = None
    use_upsampling_layer: bool = False
    pretrained_model_path: str | None = None
    regularizer_type: Literal["l1", "l2"] = "l2"
    regularizer_weight: NonNegativeFloat = 0.0
    dropout_rate: Annotated[float, Field(ge=0, lt=1)] = 0.0
    freeze_Convlayer: list[str] | None = None
    train_fpe_model: bool = True
    use_less_face_layers: Literal[False] = False
    visualization_parameters: None = None

    @property
    def stride_of_maps(self) -> int:
        """`map_stride`, or that of the type."""
        return self.map_stride or (2 if self.type == "ResidualUNet" else 1)

    @model_validator(mode="after")
    def _maps(self) -> ModelParameters:
        possible = (2, 4) if self.type == "ResidualUNet" else (1,)
        if self.stride_of_maps not in possible:
            raise ValueError(
                f"map_stride must be {' or '.join(map(str, possible))}: {self.type} makes no maps that are "
                f"{self.map_stride} times smaller than the input"
            )
        if self.stride_of_maps == 4 and self.width % 2:
            raise ValueError(
                f"width must be even with map_stride 4: maps of 1/8 are one and a half times {self.width}"
            )
        return self

    @model_validator(mode="after")
    def _upsampling(self) -> ModelParameters:
        if self.use_upsampling_layer and self.type in ("FpeNet_public", "ResidualUNet"):
            raise ValueError(
                f"use_upsampling_layer must be false: {self.type} has transposed convolutions; FpeNet_release, "
                "FpeNet_base and FpeNet_base_5x5_conv can do without"
            )
        return self


class ModelSpec(SpecModel):
    class_name: Literal["FpeNetBaseModel"] = Field("FpeNetBaseModel", alias="__class_name__")
    model_parameters: ModelParameters = ModelParameters()
    visualization_parameters: None = None


class LearningRateSchedule(SpecModel):
    """Rises from `min_learning_rate` until the share `soft_start` of the training, falls from `annealing` on.

    `last_step` is accepted and overridden by the number of steps, as in the reference.
    """

    class_name: Literal["SoftstartAnnealingLearningRateSchedule"] = Field(
        "SoftstartAnnealingLearningRateSchedule", alias="__class_name__"
    )
    soft_start: Share = 0.3
    annealing: Share = 0.5
    base_learning_rate: PositiveFloat = 5e-4
    min_learning_rate: PositiveFloat = 1e-7
    last_step: int | None = None

    @model_validator(mode="after")
    def _ordered(self) -> LearningRateSchedule:
        if self.soft_start > self.annealing:
            raise ValueError(f"soft_start {self.soft_start:g} is above annealing {self.annealing:g}")
        if self.min_learning_rate > self.base_learning_rate:
            low, high = self.min_learning_rate, self.base_learning_rate
            raise ValueError(f"min_learning_rate {low:g} is above base_learning_rate {high:g}")
        return self


class Optimizer(SpecModel):
    class_name: Literal["AdamOptimizer"] = Field("AdamOptimizer", alias="__class_name__")
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    epsilon: PositiveFloat = 1e-8
    learning_rate_schedule: LearningRateSchedule = LearningRateSchedule()


class ExperimentSpec(SpecModel):
    """A whole experiment, as `fpenet train -e` reads it.

    The flow `retrain` knows its own data and needs neither `dataset_info` nor `kpiset_info`.

    `training_precision` (ours): what convolutions are computed in while training. Weights, soft-argmax, losses and
    the network that is validated and kept are float32 in both. `bfloat16` is for processors that
    multiply it (Intel's AMX, NVIDIA's GPUs from Ampere on); others emulate it.
    """

    class_name: Literal["FpeNetTrainer"] = Field("FpeNetTrainer", alias="__class_name__")
    checkpoint_dir: str | None = None
    checkpoint_n_epoch: PositiveInt = 1
    dataloader: Dataloader
    enable_visualization: bool = True
    hooks: None = None
    infrequent_summary_every_n_steps: Literal[0] = 0
    log_every_n_secs: PositiveInt = 60
    loss: LossSpec = LossSpec()
    model: ModelSpec = ModelSpec()
    num_epoch: PositiveInt = 40
    num_keypoints: KeypointCount = 80
    optimizer: Optimizer = Optimizer()
    random_seed: int = 42
    training_precision: TrainingPrecision = "float32"
    visualize_num_images: NonNegativeInt = 3

    @property
    def unlabelled_in_batch(self) -> int:
        """Faces of a batch that come from `unlabelled_sets`, of `batch_size`; at least one of each kind."""
        elt, size = self.loss.elt_loss_info, self.dataloader.batch_size
        return min(max(1, round(size * elt.unlabelled_share)), size - 1) if elt.unlabelled_sets else 0

    @model_validator(mode="after")
    def _consistent(self) -> ExperimentSpec:
        n = self.num_keypoints
        if self.dataloader.num_keypoints != n:
            raise ValueError(f"num_keypoints is {n} here and {self.dataloader.num_keypoints} in dataloader")
        if not layout(n).is_face:
            spatial = self.dataloader.augmentation_info.modulus_spatial_augmentation
            if spatial.hflip_probability:
                raise ValueError(
                    f"hflip_probability must be 0 with {n} keypoints: only 68, 80 and 104 can be mirrored"
                )
            if self.loss.elt_loss_info.modulus_spatial_augmentation.hflip_probability:
                raise ValueError(
                    f"hflip_probability of elt_loss_info must be 0 with {n} keypoints: only 68, 80 and 104 can be "
                    "mirrored"
                )
            if self.loss.weights_dict:
                raise ValueError(f"weights_dict must be null with {n} keypoints: only 68, 80 and 104 have regions")
        elif unknown := set(self.loss.weights_dict or ()) - set(layout(n).loss_regions):
            raise ValueError(f"weights_dict weighs {', '.join(sorted(unknown))}, but {n} keypoints have none")
        if (self.model.model_parameters.confidence == "visibility") != bool(self.loss.visibility_coeff):
            raise ValueError(
                "loss.visibility_coeff trains a confidence of the kind 'visibility': set both "
                "model_parameters.confidence: visibility and a visibility_coeff above 0, or neither"
            )
        if self.loss.elt_loss_info.unlabelled_sets and self.dataloader.batch_size < 2:
            raise ValueError("batch_size must be above 1 for a batch to hold labelled and unlabelled faces")
        if self.checkpoint_n_epoch > self.num_epoch:
            raise ValueError(f"checkpoint_n_epoch {self.checkpoint_n_epoch} is above num_epoch {self.num_epoch}")
        return self
