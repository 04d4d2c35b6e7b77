"""Show a run to a person: one self-contained HTML page with the model card beside it, and a table in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.charts import UNIT_NAMES
from model.figures import history_charts
from model.paired import REGION, Outcome, Row
from model.region_error import Unit
from schemas.layouts import layout
from schemas.storage import write_bytes, write_json
from tasks.model_card import CARD, model_card
from tasks.pages import duration, evaluation_values, number, render_page, signed, size
from tasks.summary import EngineSummary, RunSummary, VerdictSummary

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PAGE, DATA = "index.html", "summary.json"
_NOT_PASSED = (Outcome.FAILED, Outcome.INCONCLUSIVE)


def write_report(summary: RunSummary, directory: Path) -> Path:
    """Write `index.html`, `summary.json` and `model-card.md` into `directory`; return the page's path."""
    write_bytes(directory / PAGE, render(summary).encode())
    write_json(directory / DATA, asdict(summary))
    write_bytes(directory / CARD, model_card(summary).encode())
    return directory / PAGE


def render(summary: RunSummary) -> str:
    """The page of a run."""
    return render_page(
        "report.html",
        run=summary,
        card=CARD,
        charts=history_charts(summary.history),
        slowest_s=max((step.seconds for step in summary.steps), default=0.0) or 1.0,
        **evaluation_values(summary.evaluation),
    )


def print_summary(summary: RunSummary, console: Console) -> None:
    """The run in a terminal: region errors, engines, gates. Its steps have told how they went."""
    print_evaluation(summary.evaluation, console)
    _print_verdict(summary.verdict, console)
    console.print(_engine_table(summary))
    for engine in summary.engines:
        if engine.not_run:
            console.print(f"{engine.target}: built, not run here: {engine.not_run}; its graph was checked instead")
    for later in summary.later:
        console.print(f"{later.target}: built on the device, after review: here, {later.builder}: {later.why}")
    for gate in summary.gates:
        mark = "[green]passed[/green]" if gate.passed else "[red]failed[/red]"
        console.print(f"{mark} {gate.name}: {number(gate.value)} {gate.unit}, bound {number(gate.bound)}")
    console.print(
        f"{summary.model_version} from snapshot {summary.snapshot_id[:12]} in {duration(summary.seconds)}, "
        f"{sum(step.state == 'reused' for step in summary.steps)} of {len(summary.steps)} steps reused"
    )


def _table(title: str, *columns: str, right_from: int) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index >= right_from else "left")
    return table


def print_evaluation(report: Mapping[str, Any], console: Console) -> None:
    """An evaluation's `report.json`: region errors, of all faces and of each dataset, and what else is one number."""
    order = list(layout(report["num_keypoints"]).regions)
    console.print(_region_table("Region error on the KPI set", report, order))
    for part in report["slices"].get("dataset", []):
        console.print(_region_table(f"Region error, {part['name']}", part, order))
    for unit, curve in report["curves"].items():
        console.print(
            f"faces by {UNIT_NAMES[Unit(unit)]}: AUC {number(curve['auc'])} up to {curve['bound']:g}, "
            f"{curve['failure_rate']:.1%} beyond"
        )
    if quality := report["confidence"].get("All"):
        console.print(f"confidence tells occluded from visible points: ROC area {quality['auc']:.3f}")


def _region_table(title: str, report: Mapping[str, Any], order: Sequence[str]) -> Table:
    title = f"{title} ({report['faces']:,} faces, {report['subjects']:,} subjects)"
    columns = ("region", "crop px", "95 %", "visible", "source px", "visible", "% eyes")
    table = _table(title, *columns, right_from=1)
    for region in order:
        units = report["regions"][region]
        crop, source, eyes = units["crop_px"], units["source_px"], units.get("inter_ocular_percent")
        table.add_row(
            region,
            number(crop["all"]["error"]),
            _interval(crop["all"]),
            number(crop["visible"]["error"]),
            number(source["all"]["error"]),
            number(source["visible"]["error"]),
            number(eyes and eyes["all"]["error"]),
        )
    return table


def _interval(cell: dict[str, Any]) -> str:
    return "–" if cell["low"] is None else f"{number(cell['low'])} to {number(cell['high'])}"


def _print_verdict(verdict: VerdictSummary, console: Console) -> None:
    """All regions, and the slices that did not pass; the page has every slice."""
    from rich.markup import escape

    if verdict.rows:
        console.print(_verdict_table(verdict))
    colour = "red" if verdict.blocks else "green"
    console.print(f"[{colour}]gate[/{colour}] {escape(verdict.summary)}", soft_wrap=True)
    for reason in verdict.reasons:
        console.print(f"[yellow]because[/yellow] {escape(reason)}", soft_wrap=True)


def _verdict_table(verdict: VerdictSummary) -> Table:
    shown = [row for row in verdict.rows if row.dimension == REGION or row.outcome in _NOT_PASSED]
    if verdict.champion is None:
        table = _table("Against the absolute bounds, crop px", "", "error", "95 %", "bound", "", right_from=1)
        for row in shown:
            table.add_row(
                row.title,
                number(row.challenger_px),
                _between(row, number),
                number(row.allowance_px),
                str(row.outcome),
            )
        return table
    columns = ("", "champion", "challenger", "difference", "95 %", "allowed", "")
    table = _table(f"Against the champion, version {verdict.champion}, crop px", *columns, right_from=1)
    for row in shown:
        table.add_row(
            row.title,
            number(row.champion_px),
            number(row.challenger_px),
            signed(row.difference_px),
            _between(row, signed),
            number(row.allowance_px),
            str(row.outcome),
        )
    return table


def _between(row: Row, words: Callable[[float | None], str]) -> str:
    return "–" if row.low_px is None else f"{words(row.low_px)} to {words(row.high_px)}"


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
