"""Which workspace a command is about."""

from __future__ import annotations

import argparse
from pathlib import Path

from schemas.errors import InputError
from tasks.workspace import Workspace


def workspace_of(arguments: argparse.Namespace) -> Workspace:
    """That of `--config`, else `--workspace`.

    Raises:
        SpecError: the configuration can't be read.
        InputError: there is no such workspace.
    """
    if arguments.config:
        from schemas.config import load_config

        return Workspace(Path(load_config(arguments.config).workspace))
    root = Path(arguments.workspace)
    if not root.is_dir():
        raise InputError(f"{root}: no such workspace; name the run's configuration with --config")
    return Workspace(root)
