"""Where annotations come from: the sources of a configuration, and how each tells whose face it shows."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveInt, field_validator, model_validator

from schemas.multipie import SUBJECT_PATTERN
from schemas.yamlspec import SpecModel

Origin = Annotated[float, Field(ge=0, le=1)]
Suffix = Annotated[str, Field(pattern=r"^\.\w+$")]


def _names_files(pattern: str) -> str:
    parts = PurePosixPath(pattern).parts
    if parts in ((), ("/",)):
        raise ValueError(f"'{pattern}' names no file")
    if any("**" in part and part != "**" for part in parts):
        raise ValueError(
            f"'{pattern}' has ** beside something else; for files in any folder write **/*.json or the like"
        )
    return pattern


def _relative(pattern: str) -> str:
    if PurePosixPath(pattern).is_absolute():
        raise ValueError(f"'{pattern}' is absolute; write it as it is below root")
    return pattern


FilePattern = Annotated[str, AfterValidator(_names_files)]
"""A file, or a pattern of files with `*`, `?`, `[...]` and `**` for any folders, as `Path.glob` has them."""

PatternBelow = Annotated[FilePattern, AfterValidator(_relative)]
"""The same below the source's `root`."""


class SubjectRule(SpecModel):
    """How a source tells whose face it is: `<dataset>/<id>`, the id from exactly one of three places.

    Attributes:
        dataset: first part of the subject. May be empty with `field`, whose value then holds both parts.
        field: name of a field of the Label Studio task's data.
        pattern: regular expression on the image's name with a group `subject`.
        csv: a table with a header; its row whose column `csv_key` is the image's name has the id in `csv_value`.
    """

    dataset: str = ""
    field: str | None = None
    pattern: str | None = None
    csv: str | None = None
    csv_key: str = "file"
    csv_value: str = "subject_id"

    @field_validator("pattern")
    @classmethod
    def _has_group(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                groups = re.compile(pattern).groupindex
            except re.error as error:
                raise ValueError(f"'{pattern}' is not a regular expression: {error}") from None
            if "subject" not in groups:
                raise ValueError(f"'{pattern}' has no group (?P<subject>...)")
        return pattern

    @model_validator(mode="after")
    def _one_place(self) -> SubjectRule:
        if sum(place is not None for place in (self.field, self.pattern, self.csv)) != 1:
            raise ValueError("give exactly one of field, pattern and csv")
        if not self.dataset and self.field is None:
            raise ValueError("dataset is needed: the same id means another person in another dataset")
        return self


class SourceBase(SpecModel):
    """What all sources have.

    Attributes:
        occlusion: what a keypoint without a flag means: `flagged` visible, `none` unknown, `auto` visible as soon as
            any keypoint of the source has a flag.
        name_format: images are named as in this dataset. `multipie`: the name tells session, camera and illumination
            where the annotation does not, and, unless there is a subject rule, the subject `multipie/<three digits>`.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    subject: SubjectRule | None = None
    occlusion: Literal["auto", "flagged", "none"] = "auto"
    name_format: Literal["multipie"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _subject_in_name(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("name_format") == "multipie" and data.get("subject") is None:
            return data | {"subject": {"dataset": "multipie", "pattern": SUBJECT_PATTERN}}
        return data


class RenderedSource(SourceBase):
    """Faces that this project renders itself, with exact ground truth."""

    kind: Literal["rendered"]
    subjects: Annotated[int, Field(ge=60)] = 80
    images_per_subject: PositiveInt = 20
    seed: int = 0


class SlothSource(SourceBase):
    """A folder of Sloth/TAO ground-truth files: `gt` are patterns below `root`, images are below `image_root`.

    Without a subject rule the key `subject` of an image entry, `<dataset>/<id>`, says whose face it is.

    `image_root` defaults to `root`. The set id of a file is its folder below `gt`, or its stem. `origin` is as in
    `PtsSource`: 0 in the format; files that were made of other ones may have kept theirs.
    """

    kind: Literal["sloth"]
    root: str
    gt: Annotated[list[PatternBelow], Field(min_length=1)] = ["gt/**/*.json"]
    image_root: str | None = None
    origin: Origin = 0.0


class LabelStudioSource(SourceBase):
    """A project on a Label Studio server; the token comes from the environment variable `token_env`.

    A pull fetches what changed since the last one. `reconcile_hours` after the project was last gone through as a
    whole it is gone through again, which finds what the server does not tell as a change; 0 does so on every pull.
    """

    kind: Literal["label_studio"]
    url: str
    project: int | str
    token_env: str = "LABEL_STUDIO_API_KEY"
    image_field: str = "image"
    page_size: PositiveInt = 500
    reconcile_hours: NonNegativeFloat = 24.0


class LabelStudioExportSource(SourceBase):
    """JSON exports of Label Studio projects; images are looked for below `image_root` by name."""

    kind: Literal["label_studio_export"]
    files: Annotated[list[FilePattern], Field(min_length=1)]
    image_root: str
    image_field: str = "image"


class PtsSource(SourceBase):
    """A folder of `.pts` files, one for each face, as 300-W and its relatives have them.

    Attributes:
        root, files: patterns below `root`; the set id of a file is its folder below `root`, or the source's name.
        image_root: folder in which an image stands where its `.pts` file stands below `root`; `root` if null.
        image_suffixes: endings an image may have, such as `.png`. A second image of the same name is an error.
        origin: the coordinate that the files give to the centre of the top-left pixel: 1 in 300-W, made with MATLAB.
    """

    kind: Literal["pts"]
    root: str
    files: Annotated[list[PatternBelow], Field(min_length=1)] = ["**/*.pts"]
    image_root: str | None = None
    image_suffixes: Annotated[list[Suffix], Field(min_length=1)] = [".png", ".jpg", ".jpeg", ".bmp"]
    origin: Origin = 1.0


class WflwSource(SourceBase):
    """WFLW's lists: a line for each face. Gives 98 keypoints, or with `num_keypoints: 68` those of 300-W's 68.

    Attributes:
        files: lists such as `list_98pt_rect_attr_train.txt`, or patterns; a list's name is its set id.
        image_root: the folder `WFLW_images`.
        origin: as in `PtsSource`; WFLW does not say, its users take 0.
    """

    kind: Literal["wflw"]
    files: Annotated[list[FilePattern], Field(min_length=1)]
    image_root: str
    origin: Origin = 0.0


class CofwSource(SourceBase):
    """COFW's MATLAB files, which hold the images too: 29 keypoints with an occlusion flag each.

    Attributes:
        files: `COFW_train_color.mat` and the like, or patterns; a file's name is its set id. Its images are named
            `COFW_train_color/0001.png`, with the folders before it in which files of several ones lie.
        points_68: folder with `<n>_points.mat` for the n-th image of the one file, as COFW68 has them for the test
            images: 68 keypoints are read from there instead.
        origin: as in `PtsSource`: 1, COFW was made with MATLAB.
    """

    kind: Literal["cofw"]
    files: Annotated[list[FilePattern], Field(min_length=1)]
    points_68: str | None = None
    origin: Origin = 1.0


class CocoSource(SourceBase):
    """COCO keypoint files: any number of faces in an image, with a flag for each keypoint.

    A subject rule's `field` is a key of the image; all faces of an image have its subject.

    Attributes:
        files: JSON files, or patterns; a file's name is its set id. One file at a time is in memory.
        image_root: folder to which `file_name` is relative.
        field: `keypoints` with the box `bbox`, or `face_kpts` with `face_box`, as COCO-WholeBody has them.
        origin: as in `PtsSource`: 0 in COCO; 0.5 for tools that count from the image's corner.
    """

    kind: Literal["coco"]
    files: Annotated[list[FilePattern], Field(min_length=1)]
    image_root: str
    field: Literal["keypoints", "face_kpts"] = "keypoints"
    origin: Origin = 0.0


LandmarkSource = PtsSource | WflwSource | CofwSource | CocoSource
"""What datasets of facial landmarks come as."""

Source = Annotated[
    RenderedSource | SlothSource | LabelStudioSource | LabelStudioExportSource | LandmarkSource,
    Field(discriminator="kind"),
]
