"""A version of our own code, so that what it made is not taken for what it would make now."""

from __future__ import annotations

import ast
import hashlib
import re
import threading
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from schemas.storage import sha256_file, sha256_of

OUR_PACKAGES = ("flows", "tasks", "deploy", "model", "schemas")
SOURCE_ROOT = Path(__file__).resolve().parent.parent
DATA_SUFFIXES = (".json", ".yaml", ".html")
LENGTH = 20

_ONE_PARSER = threading.Lock()
"""CPython 3.11 counts for all threads together how deep in a tree it is: two at once can end in a SystemError."""

_PART = re.compile(r"""\{%-?\s*(?:extends|import|include|from)\s+["']([^"']+)["']""")


@lru_cache
def code_version(module: str, *, data: bool = True) -> str:
    """Hash of the sources of `module` and of every module of ours that it imports, directly or not.

    Imports inside functions count, so nothing that can run is left out.

    Args:
        data: so do the data files (schemas, templates) beside a module that its source names, and the templates that
            a template is made of.
    """
    digests: dict[str, str] = {}
    waiting = [module]
    while waiting:
        path = _module_file(waiting.pop())
        if path is None or (name := str(path.relative_to(SOURCE_ROOT))) in digests:
            continue
        source = path.read_text()
        digests[name] = hashlib.sha256(source.encode()).hexdigest()
        for file in _data_files(path, source) if data else ():
            digests[str(file.relative_to(SOURCE_ROOT))] = sha256_file(file)
        waiting += _imported_names(source)
    return sha256_of(digests)[:LENGTH]


def _data_files(module: Path, source: str) -> set[Path]:
    waiting = [file for file in module.parent.iterdir() if file.suffix in DATA_SUFFIXES and file.name in source]
    found: set[Path] = set()
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += _parts_of(file)
    return found


def _parts_of(template: Path) -> Iterator[Path]:
    """The files that a template extends, imports or includes: beside it, or in a folder above, where it is loaded."""
    for name in _PART.findall(template.read_text()):
        for folder in template.parents:
            if folder.is_relative_to(SOURCE_ROOT) and (folder / name).is_file():
                yield folder / name


def _imported_names(source: str) -> list[str]:
    with _ONE_PARSER:
        tree = ast.parse(source)
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def _module_file(name: str) -> Path | None:
    """The file of a module of ours, found without importing it (TensorFlow takes 9 s); None for anything else."""
    if name.split(".")[0] not in OUR_PACKAGES:
        return None
    place = SOURCE_ROOT.joinpath(*name.split("."))
    for path in (place.with_suffix(".py"), place / "__init__.py"):
        if path.is_file():
            return path
    return None
