"""Which workspace a command is about."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.errors import InputError
from tasks.workspace import Workspace

if TYPE_CHECKING:
    from schemas.config import WorkflowConfig


def workspace_of(arguments: argparse.Namespace) -> Workspace:
    """That of `--config`, else `--workspace`.

    Raises:
        SpecError: the configuration can't be read.
        InputError: there is no such workspace.
    """
    if arguments.config:
        from schemas.config import load_config

        return workspace_in_use(load_config(arguments.config))
    root = Path(arguments.workspace)
    if not root.is_dir():
        raise InputError(f"{root}: no such workspace; name the run's configuration with --config")
    return Workspace(root)


def workspace_in_use(config: WorkflowConfig) -> Workspace:
    """A configuration's, for commands that look at what runs have left there.

    Raises:
        InputError: there is none yet.
    """
    workspace = Workspace(Path(config.workspace))
    if not workspace.root.is_dir():
        raise InputError(
            f"{workspace.root}: no such workspace; no flow has run with this configuration yet, or it names another "
            "one than you mean"
        )
    return workspace
