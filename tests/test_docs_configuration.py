"""`docs/configuration.md` has every key of a configuration and of a fleet, with its default, and no other."""

import re
from pathlib import Path
from typing import get_args

import pytest
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from deploy.devices import Device
from schemas.config import WorkflowConfig
from schemas.sources import Source, SourceBase, SubjectRule
from tasks.workspace import Workspace

PAGE = Path(__file__).parent.parent / "docs" / "configuration.md"
IN_WORDS = {"kpi_subjects"}
"""Defaults too long for a table."""


def sections():
    """Title of a section -> the model whose keys it has."""
    models = {"Everything": WorkflowConfig, "Sources": SourceBase, "subject": SubjectRule, "The devices file": Device}
    for name, key in WorkflowConfig.model_fields.items():
        if isinstance(key.annotation, type) and issubclass(key.annotation, BaseModel):
            models[name] = key.annotation
    kinds = [*get_args(get_args(Source)[0]), *get_args(Device.model_fields["reach"].annotation)]
    return models | {f"kind: {get_args(one.model_fields['kind'].annotation)[0]}": one for one in kinds}


def section(title):
    """The text under a heading."""
    (text,) = re.findall(rf"^##+ `?{title}`?\n(.*?)(?=^#|\Z)", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return text


def rows(title):
    """Key -> default of the table under a heading."""
    return dict(re.findall(r"^\| `(\w+)` \| ?(.*?) ?\|", section(title), re.MULTILINE))


@pytest.mark.parametrize(("title", "model"), sections().items(), ids=sections())
def test_every_key_is_told_with_its_default(title, model):
    told, shared = rows(title), set() if model is SourceBase else set(SourceBase.model_fields)
    keys = {name: key for name, key in model.model_fields.items() if name not in shared | {"kind"}}
    assert set(told) - {"kind"} == set(keys)
    for name, key in keys.items():
        default = key.get_default()
        if default is PydanticUndefined or isinstance(default, BaseModel):
            assert told[name] == "", name
        elif name not in IN_WORDS:
            assert yaml.safe_load(told[name].strip("`")) == default, name


def test_every_place_of_the_workspace_is_told():
    workspace = Workspace(Path("root"))
    places = [getattr(workspace, name) for name, kind in vars(Workspace).items() if isinstance(kind, property)]
    names = {place.name for place in places if isinstance(place, Path) and place.parent == workspace.root}
    told = set(re.findall(r"`([\w.-]+)/?`", section("The workspace")))
    assert names | {"raw"} <= told


def test_no_section_is_of_nothing():
    titles = re.findall(r"^##+ `?(.*?)`?$", PAGE.read_text(), re.MULTILINE)
    assert sorted(titles) == sorted([*sections(), "The workspace", "Environment"])
