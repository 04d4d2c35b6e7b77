"""The rules of promotion: what a challenger must show to replace the champion. One file, `promotion_rules.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, field_validator

from schemas.errors import nearest
from schemas.layouts import FACE_SIZES, layout
from schemas.storage import sha256_of
from schemas.yamlspec import SpecModel, load_spec

RULES = Path(__file__).with_name("promotion_rules.yaml")

Dimension = Literal["yaw", "occlusion", "set", "dataset"]
DIMENSIONS: tuple[Dimension, ...] = ("yaw", "occlusion", "set", "dataset")
"""Of `model.slices.all_slices`."""

SmallSlice = Literal["block", "show"]
"""What a slice with too few subjects does: block as inconclusive, or be shown and decide nothing."""

Pixels = NonNegativeFloat


class Bootstrap(SpecModel):
    """How an interval is made: `draws` of all subjects with replacement; `confidence` is two-sided."""

    draws: Annotated[int, Field(ge=200, le=100_000)] = 2000
    seed: NonNegativeInt = 20260101
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95


class Allowances(SpecModel):
    """How much worse a challenger may be, in crop pixels; None: shown, decides nothing.

    Attributes:
        regions: region -> allowance over all faces.
        slices: dimension -> allowance of each of its slices, over the region All.
        named: `dimension/name` of a slice -> allowance instead of its dimension's.
    """

    regions: dict[str, Pixels | None]
    slices: dict[Dimension, Pixels | None] = {}
    named: dict[str, Pixels | None] = {}

    @field_validator("regions")
    @classmethod
    def _has_all(cls, regions: dict[str, Pixels | None]) -> dict[str, Pixels | None]:
        _refuse_unknown_regions(regions)
        if regions.get("All") is None:
            raise ValueError("the region All needs a number: without it nothing would be compared as a whole")
        return regions

    @field_validator("named")
    @classmethod
    def _slices(cls, named: dict[str, Pixels | None]) -> dict[str, Pixels | None]:
        for name in named:
            dimension, _, rest = name.partition("/")
            if dimension not in DIMENSIONS or not rest:
                raise ValueError(
                    f"'{name}' is no slice{nearest(dimension, DIMENSIONS)}; write dimension/name as the verdict "
                    f"shows it, such as 'yaw/over 60°', with a dimension out of {', '.join(DIMENSIONS)}"
                )
        return named

    def of_slice(self, dimension: Dimension, name: str) -> float | None:
        return self.named.get(f"{dimension}/{name}", self.slices.get(dimension))


class PromotionRules(SpecModel):
    """See `promotion_rules.yaml`, which says what every value is for.

    Attributes:
        minimum_subjects: fewer in a row: "inconclusive".
        small_slices: dimension -> what a slice of it with fewer does; `block` where it is not named.
        bounds_crop_px: region -> largest upper end of the error's interval where there is no champion.
    """

    minimum_subjects: Annotated[int, Field(ge=2)] = 20
    small_slices: dict[Dimension, SmallSlice] = {}
    bootstrap: Bootstrap = Bootstrap()
    allowance_crop_px: Allowances
    bounds_crop_px: Annotated[dict[str, PositiveFloat], Field(min_length=1)]

    @field_validator("bounds_crop_px")
    @classmethod
    def _has_all(cls, bounds: dict[str, PositiveFloat]) -> dict[str, PositiveFloat]:
        _refuse_unknown_regions(bounds)
        if "All" not in bounds:
            raise ValueError("the region All needs a bound: without it a first model would be held against nothing")
        return bounds

    def may_be_small(self, dimension: str, name: str) -> bool:
        """Whether too few subjects of this row block nothing: never a region, nor a slice that has its own number."""
        own = self.allowance_crop_px.named.get(f"{dimension}/{name}")
        return own is None and self.small_slices.get(dimension) == "show"

    @property
    def sha256(self) -> str:
        """Of what the rules say, whatever their file looks like."""
        return sha256_of(self.model_dump(mode="json"))


def load_rules(path: Path | str | None = None) -> PromotionRules:
    """The rules in `path`, by default those that come with the package.

    Raises:
        SpecError: the file can't be read, or has a wrong or unknown key, region or slice.
    """
    return load_spec(PromotionRules, path or RULES)


def _refuse_unknown_regions(names: dict[str, float | None] | dict[str, float]) -> None:
    known = list(dict.fromkeys(region for size in FACE_SIZES for region in layout(size).regions))
    for name in names:
        if name not in known:
            raise ValueError(f"there is no region '{name}'{nearest(name, known)}; known: {', '.join(known)}")
