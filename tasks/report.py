"""Show a run to a person: one self-contained HTML page, and a table in the terminal."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.charts import region_chart
from model.figures import history_charts
from schemas.storage import write_bytes, write_json
from tasks.summary import EngineSummary, RunSummary

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

TEMPLATE = Path(__file__).with_name("report.html")
PAGE, DATA = "index.html", "summary.json"
HARDEST = 8


def write_report(summary: RunSummary, directory: Path) -> Path:
    """Write `index.html` and `summary.json` into `directory`; return the page's path."""
    write_bytes(directory / PAGE, render(summary).encode())
    write_json(directory / DATA, asdict(summary))
    return directory / PAGE


def render(summary: RunSummary) -> str:
    """The page. It needs no other file and asks for none; all text in it is escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"duration": duration, "size": size, "number": number, "picture": _picture}
    return environment.from_string(TEMPLATE.read_text()).render(
        run=summary,
        charts=history_charts(summary.history),
        region_chart=region_chart(summary.evaluation["regions"]),
        hardest=_hardest_subjects(summary.evaluation),
        slowest_s=max((step.seconds for step in summary.steps), default=0.0) or 1.0,
    )


def print_summary(summary: RunSummary, console: Console) -> None:
    """The run in a terminal: region errors, engines, gates. Its steps have told how they went."""
    print_regions(summary.evaluation, console)
    console.print(_engine_table(summary))
    for engine in summary.engines:
        if engine.not_run:
            console.print(f"{engine.target}: built, not run here: {engine.not_run}; its graph was checked instead")
    for gate in summary.gates:
        mark = "[green]passed[/green]" if gate.passed else "[red]failed[/red]"
        console.print(f"{mark} {gate.name}: {number(gate.value)} {gate.unit}, bound {number(gate.bound)}")
    for note in summary.notes:
        console.print(f"[yellow]note[/yellow] {note}")
    console.print(
        f"{summary.model_version} from snapshot {summary.snapshot_id[:12]} in {duration(summary.seconds)}, "
        f"{sum(step.state == 'reused' for step in summary.steps)} of {len(summary.steps)} steps reused"
    )


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


def _hardest_subjects(evaluation: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    subjects = evaluation["by_subject"].items()
    return sorted(subjects, key=lambda item: (-item[1]["crop_px"]["All"], item[0]))[:HARDEST]


def _picture(path: str) -> str:
    """A PNG file as a data URL."""
    return f"data:image/png;base64,{base64.b64encode(Path(path).read_bytes()).decode()}"


def _table(title: str, *columns: str, right_from: int) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index >= right_from else "left")
    return table


def print_regions(report: Mapping[str, Any], console: Console) -> None:
    """The region errors of an evaluation's `report.json`, of all faces and of each dataset."""
    console.print(_region_table("Region error on the KPI set", report))
    for part in report["slices"].get("dataset", []):
        console.print(_region_table(f"Region error, {part['name']}", part))


def _region_table(title: str, report: Mapping[str, Any]) -> Table:
    title = f"{title} ({report['faces']:,} faces, {report['subjects']:,} subjects)"
    columns = ("region", "crop px", "95 %", "visible", "source px", "visible")
    table = _table(title, *columns, right_from=1)
    for region, units in report["regions"].items():
        crop, source = units["crop_px"], units["source_px"]
        table.add_row(
            region,
            number(crop["all"]["error"]),
            _interval(crop["all"]),
            number(crop["visible"]["error"]),
            number(source["all"]["error"]),
            number(source["visible"]["error"]),
        )
    return table


def _interval(cell: dict[str, Any]) -> str:
    return "–" if cell["low"] is None else f"{number(cell['low'])} to {number(cell['high'])}"


def _engine_table(summary: RunSummary) -> Table:
    table = _table("Engines", "target", "builder", "precision", "size", "parity px", "latency", right_from=3)
    for engine in summary.engines:
        table.add_row(
            engine.target,
            engine.builder,
            engine.precision,
            size(engine.size_bytes),
            number(engine.parity_px),
            _latency(engine),
        )
    return table


def _latency(engine: EngineSummary) -> str:
    return "–" if engine.latency_ms is None else f"{number(engine.latency_ms)} ms"
