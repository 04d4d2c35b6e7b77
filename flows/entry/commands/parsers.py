"""What the groups of commands share."""

from __future__ import annotations

import argparse
from typing import Any

from schemas.layouts import MAX_KEYPOINTS


def add_command(commands: Any, name: str, handler: str, summary: str, *, more: str = "") -> argparse.ArgumentParser:
    """Add a command. `handler` is `module:function`; it takes the parsed arguments, returns an exit code or None."""
    parser = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}. {more}".strip())
    parser.set_defaults(handler=f"flows.entry.{handler}")
    return parser


def add_workspace(parser: Any) -> None:
    parser.add_argument("--workspace", default="workspace", metavar="DIR", help="workspace of the flow (%(default)s)")


def add_place(parser: argparse.ArgumentParser) -> None:
    """`--workspace` or `--config`, as `flows.entry.workspaces` reads them."""
    place = parser.add_mutually_exclusive_group()
    add_workspace(place)
    place.add_argument(
        "--config", metavar="FILE", help="configuration (YAML): its workspace, and its devices where it is about them"
    )


def count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above 0")
    return int(text)


def keypoints(text: str) -> int:
    if (number := count(text)) > MAX_KEYPOINTS:
        raise argparse.ArgumentTypeError(f"a face has at most {MAX_KEYPOINTS} keypoints, not {number}")
    return number


def origin(text: str) -> float:
    try:
        if 0 <= (value := float(text)) <= 1:
            return value
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"'{text}' is not a number from 0 to 1")
