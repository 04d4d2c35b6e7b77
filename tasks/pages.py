"""Pages that need no other file and ask for none; all text in HTML is escaped, in Markdown what `plain` is put on."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.charts import UNIT_NAMES
from schemas.layouts import layout

TEMPLATES = Path(__file__).parent
SLICE_TITLES = {
    "yaw": "By yaw",
    "occlusion": "By share of occluded points",
    "set": "By set",
    "dataset": "By dataset (the first part of a subject)",
}


def render_page(template: str, **values: Any) -> str:
    """A page from `template`, a file beside this one: HTML that extends `page.html`, or Markdown.

    Raises:
        jinja2.UndefinedError: the template names a value that is not there.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "duration": duration,
        "size": size,
        "number": number,
        "percent": percent,
        "picture": _picture,
        "plain": plain,
        "signed": signed,
        "thousands": "{:,}".format,
    }
    return environment.get_template(template).render(unit_names=UNIT_NAMES, slice_titles=SLICE_TITLES, **values)


def evaluation_values(report: Mapping[str, Any]) -> dict[str, Any]:
    """What `evaluation_parts.html` is given beside the report: charts, regions in order, subjects worst first."""
    from model.evaluation_charts import evaluation_charts

    return {
        "evaluation_charts": evaluation_charts(report),
        "regions": list(layout(report["num_keypoints"]).regions),
        "subjects": sorted(report["by_subject"].items(), key=lambda item: (-item[1]["crop_px"]["All"], item[0])),
    }


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 05 s`, `1 h 02 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def size(number_of_bytes: int) -> str:
    """`812 kB`, `3.4 MB`, powers of 1000."""
    return f"{number_of_bytes / 1e6:.1f} MB" if number_of_bytes >= 999_500 else f"{number_of_bytes / 1e3:.0f} kB"


def number(value: float | None) -> str:
    """Two decimals; three significant digits below 0.1; a dash for nothing."""
    if value is None:
        return "–"
    return f"{value:.2f}" if value == 0 or abs(value) >= 0.1 else f"{value:.3g}"


def signed(value: float | None) -> str:
    """A difference: always with its sign, two decimals."""
    return "–" if value is None else f"{value:+.2f}"


def percent(share: float) -> str:
    """`0.312 %`, `50 %`: three significant digits."""
    return f"{100 * share:.3g} %"


def plain(text: str) -> str:
    """Text for Markdown in which no character is a mark."""
    return re.sub(r"([\\`*_\[\]<>|#~&])", r"\\\1", " ".join(text.split()))


def _picture(path: str) -> str:
    """A PNG file as a data URL."""
    return f"data:image/png;base64,{base64.b64encode(Path(path).read_bytes()).decode()}"
