"""Where annotations come from: the sources of a configuration, and how each tells whose face it shows."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from schemas.yamlspec import SpecModel

Count = Annotated[int, Field(gt=0)]


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
    """`occlusion`: what a keypoint without a flag means: `flagged` visible, `none` unknown, `auto` visible as
    soon as any keypoint of the source has a flag."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    subject: SubjectRule | None = None
    occlusion: Literal["auto", "flagged", "none"] = "auto"


class RenderedSource(SourceBase):
    """Faces that this project renders itself, with exact ground truth."""

    kind: Literal["rendered"]
    subjects: Annotated[int, Field(ge=60)] = 80
    images_per_subject: Count = 20
    seed: int = 0


class SlothSource(SourceBase):
    """A folder of Sloth/TAO ground-truth files: `gt` are patterns below `root`, images are below `image_root`.

    `image_root` defaults to `root`. The set id of a file is its folder below `gt`, or its stem.
    """

    kind: Literal["sloth"]
    root: str
    gt: list[str] = ["gt/**/*.json"]
    image_root: str | None = None


class LabelStudioSource(SourceBase):
    """A project on a Label Studio server; the token comes from the environment variable `token_env`."""

    kind: Literal["label_studio"]
    url: str
    project: int | str
    token_env: str = "LABEL_STUDIO_API_KEY"
    image_field: str = "image"
    page_size: Count = 500


class LabelStudioExportSource(SourceBase):
    """JSON exports of Label Studio projects; images are looked for below `image_root` by name."""

    kind: Literal["label_studio_export"]
    files: list[str]
    image_root: str
    image_field: str = "image"


Source = Annotated[
    RenderedSource | SlothSource | LabelStudioSource | LabelStudioExportSource, Field(discriminator="kind")
]
