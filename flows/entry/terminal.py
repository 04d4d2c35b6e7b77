"""What a command tells on standard output."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

console = Console(highlight=False)


def say(text: str) -> None:
    """Print the text as it is: brackets in a path are no markup, and no line is broken."""
    console.print(text, markup=False, soft_wrap=True)


def warn(text: str) -> None:
    """The same, and that it is a warning."""
    console.print(f"[yellow]warning[/] {escape(text)}", soft_wrap=True)
