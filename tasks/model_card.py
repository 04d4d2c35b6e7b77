"""The model card of a version: what it is, what it is for, where it is weak, in numbers of the run that made it.

It outlives the people in the data, whom `fpenet forget` takes out of everything else. So it names no subject, no
record and no image, and leaves out the kinds of faces that a single subject or face makes up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import degrees
from typing import Any

from model.slices import YAW_EDGES
from schemas.augmentation import Augmentation, GammaAugmentation, SpatialAugmentation
from schemas.experiment import EltLoss, ExperimentSpec
from schemas.layouts import layout
from tasks.pages import number, percent, plain, render_page
from tasks.summary import RunSummary

CARD = "model-card.md"
LISTED = 3
"""Kinds of faces that a sentence names."""
FEW_SUBJECTS = 20
"""With fewer, an interval over subjects is narrower than its 95 % promise (docs/adr/017-the-gate.md)."""

Slices = Mapping[str, Sequence[Mapping[str, Any]]]
"""Dimension -> its slices, as in `report.json`."""


def model_card(summary: RunSummary) -> str:
    """Markdown. The same for a rerun that finds everything as it was."""
    spec, report = ExperimentSpec.model_validate(summary.candidate.spec), summary.evaluation
    text = render_page(
        "model_card.md",
        run=summary,
        spec=spec,
        regions=list(layout(report["num_keypoints"]).regions),
        is_face=layout(report["num_keypoints"]).is_face,
        slices=shown_slices(report),
        kept=next(row for row in reversed(summary.history) if row["best"]),
        training_s=sum(row["seconds"] for row in summary.history),
        augmentation=list(_augmentation(spec.dataloader.augmentation_info)),
        elt=_elt(spec.loss.elt_loss_info),
        limits=list(limits(summary)),
    )
    return f"{text}\n"


def shown_slices(report: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """The report's slices without those whose numbers would be one person's."""
    shown = {
        dimension: [part for part in parts if min(part["faces"], part["subjects"] or part["faces"]) > 1]
        for dimension, parts in report["slices"].items()
    }
    return {dimension: parts for dimension, parts in shown.items() if parts}


def limits(summary: RunSummary) -> Iterator[str]:
    """What the run's numbers say against the version, and what they leave open, a sentence or two each."""
    yield from _weak(summary.evaluation)
    yield from _unsure(summary.evaluation)
    yield from _from_the_data(summary)
    yield from _unmeasured(summary)


def _weak(report: Mapping[str, Any]) -> Iterator[str]:
    whole, parts = _error(report), _by_name(shown_slices(report))
    worse = {name: part for name, part in parts.items() if _wholly_above(_error(part), whole)}
    for name, part in worse.items():
        yield (
            f"Worse on {name}, {part['faces']:,} faces of {part['subjects']:,} subjects: "
            f"{_with_interval(_error(part))} crop px; all faces {_with_interval(whole)}."
        )
    if whole["low"] is not None and parts and not worse:
        yield "No kind of faces is shown to be worse than the whole: no interval lies wholly above that of all faces."
    regions = {name: _error(report, name)["error"] for name in report["regions"] if name != "All"}
    if regions:
        worst = max(regions, key=lambda name: regions[name])
        yield f"The hardest region is {worst}: {number(regions[worst])} crop px."


def _unsure(report: Mapping[str, Any]) -> Iterator[str]:
    shown = shown_slices(report)
    parts = {name: part for name, part in _by_name(shown).items() if _error(part)["low"] is not None}
    widest = sorted(parts, key=lambda name: _error(parts[name])["low"] - _error(parts[name])["high"])[:LISTED]
    if widest:
        named = (
            f"{name} ({_between(_error(parts[name]))} crop px, {parts[name]['subjects']:,} subjects)"
            for name in widest
        )
        yield f"Least is known where the intervals are widest: {'; '.join(named)}."
        yield from _too_narrow(report["subjects"], {name: part["subjects"] for name, part in parts.items()})
    if left_out := len(_by_name(report["slices"])) - len(_by_name(shown)):
        yield (
            f"Kinds of faces that are left out here because one subject or one face makes them up: {left_out}. "
            "Nothing can be said of such faces."
        )
    if report["faces_without_subject"]:
        yield (
            f"No intervals: {report['faces_without_subject']:,} KPI faces do not say whose they are, so nobody knows "
            "how far the errors would move with other people."
        )
    elif report["subjects"] == 1:
        yield "No intervals: the KPI faces show one subject, and say little about others."


def _too_narrow(whole: int, subjects: Mapping[str, int]) -> Iterator[str]:
    """Of how many subjects the whole set is, and its kinds of faces by name."""
    few = [name for name in sorted(subjects, key=subjects.__getitem__) if subjects[name] < FEW_SUBJECTS]
    if whole < FEW_SUBJECTS:
        yield f"Intervals are too narrow everywhere: fewer than {FEW_SUBJECTS} subjects, {whole}, are in the KPI set."
    elif few:
        named = ", ".join(f"{name} ({subjects[name]})" for name in few[:LISTED])
        more = f" and {len(few) - LISTED} more" if len(few) > LISTED else ""
        yield f"Intervals are too narrow where there are fewer than {FEW_SUBJECTS} subjects: {named}{more}."


def _from_the_data(summary: RunSummary) -> Iterator[str]:
    rendered = [source.kind == "rendered" for source in summary.sources]
    if any(rendered):
        share = "All" if all(rendered) else "Some"
        yield f"{share} of the faces are rendered by this project: errors on photographs may be other ones."
    unflagged = [source.name for source in summary.sources if source.accepted and not _flagged(source.points)]
    if unflagged:
        yield (
            f"No flags from {plain(', '.join(unflagged))}: nobody said which points are hidden there, so that errors "
            "of visible points and the confidence's quality do not count them."
        )
    nameless = sum(split.nameless for split in summary.splits if split.split != "kpi")
    if nameless:
        yield (
            f"{nameless:,} faces that were learnt from do not say whose they are: subjects of the KPI faces may be "
            "among them, and the errors too good."
        )
    if unreachable := summary.evaluation["unreachable_share"]:
        yield (
            f"{percent(unreachable)} of the KPI points lie beyond the crop's outermost pixel centres, where no "
            "network puts one: a soft-argmax ends there or, with maps smaller than the crop, before."
        )
    if summary.verdict.blocks:
        yield f"The gate says {summary.verdict.state}; the report for reviewers says why."


def _unmeasured(summary: RunSummary) -> Iterator[str]:
    report = summary.evaluation
    slices = report["slices"]
    last = f"over {YAW_EDGES[-1]}°"
    if "yaw" not in slices:
        yield "Not measured: how the error grows as a face turns. The layout has no nose and eyes to tell it by."
    elif last not in {part["name"] for part in slices["yaw"]}:
        yield f"Not measured: faces turned by {last}. There is none among the KPI faces."
    if "occlusion" not in slices:
        yield "Not measured: how the error grows with occlusion. No KPI face has a flag for each of its points."
    if "All" not in report["confidence"]:
        yield (
            "Not measured: what the confidence is worth. The KPI points are not flagged both as visible and as "
            "occluded."
        )
    for engine in summary.engines:
        if engine.not_run:
            yield (
                f"Not measured: the {engine.target} engine's own parity and speed. It was built and not run: "
                f"{plain(engine.not_run)}."
            )
    if summary.later:
        yield f"Not built yet, so not measured: {', '.join(later.target for later in summary.later)}."
    yield (
        "Not measured: boxes of a detector. KPI faces are cut out by the square around their true points; boxes that "
        "lie otherwise will cost accuracy."
    )
    yield (
        "Not measured, for nothing in the evaluation tells them apart: age, sex, skin, glasses and beards; light, "
        "camera and compression; steadiness from frame to frame."
    )


def _by_name(slices: Slices) -> dict[str, Mapping[str, Any]]:
    """`yaw over 60°` -> the slice, for Markdown."""
    return {plain(f"{dimension} {part['name']}"): part for dimension, parts in slices.items() for part in parts}


def _error(part: Mapping[str, Any], region: str = "All") -> Mapping[str, float | None]:
    """Crop px over all points of a report or a slice: `error`, `low`, `high`."""
    return part["regions"][region]["crop_px"]["all"]


def _wholly_above(cell: Mapping[str, float | None], whole: Mapping[str, float | None]) -> bool:
    return cell["low"] is not None and whole["high"] is not None and cell["low"] > whole["high"]


def _with_interval(cell: Mapping[str, float | None]) -> str:
    error = number(cell["error"])
    return error if cell["low"] is None else f"{error} ({_between(cell)})"


def _between(cell: Mapping[str, float | None]) -> str:
    return f"{number(cell['low'])} to {number(cell['high'])}"


def _flagged(points: Mapping[str, int]) -> int:
    return points["visible"] + points["occluded"]


def _augmentation(augmentation: Augmentation) -> Iterator[str]:
    """What is done to training faces, a few words each."""
    if not augmentation.enable_online_augmentation:
        return
    yield from _moves(augmentation.modulus_spatial_augmentation)
    if augmentation.gamma_augmentation.gamma_probability:
        yield _gamma(augmentation.gamma_augmentation)
    if augmentation.enable_resize_augmentation and augmentation.augmentation_resize_probability:
        yield (
            f"scaled by {augmentation.augmentation_resize_scale:g} and back "
            f"({percent(augmentation.augmentation_resize_probability)})"
        )
    if augmentation.enable_occlusion_augmentation and augmentation.patch_probability:
        yield f"a patch of one grey in front ({percent(augmentation.patch_probability)})"
    if augmentation.occluder_probability:
        yield f"an occluder in front ({percent(augmentation.occluder_probability)})"


def _moves(spatial: SpatialAugmentation) -> Iterator[str]:
    if spatial.hflip_probability:
        yield f"mirrored ({percent(spatial.hflip_probability)})"
    if spatial.rotate_rad_max:
        yield f"rotated by up to {degrees(spatial.rotate_rad_max):.0f}°"
    if spatial.translate_max_x or spatial.translate_max_y:
        yield f"shifted by up to {spatial.translate_max_x:g} px across and {spatial.translate_max_y:g} px down"
    if (spatial.zoom_min, spatial.zoom_max) != (1, 1):
        yield f"zoomed by {spatial.zoom_min:g} to {spatial.zoom_max:g}"


def _gamma(gamma: GammaAugmentation) -> str:
    values = (
        f"{gamma.gamma_min:g} to {gamma.gamma_max:g}"
        if gamma.gamma_type == "uniform"
        else f"around {gamma.gamma_mu:g}, standard deviation {gamma.gamma_std:g}"
    )
    return f"gamma {values} ({percent(gamma.gamma_probability)})"


def _elt(elt: EltLoss) -> str:
    if not (elt.enable_elt_loss and elt.elt_alpha):
        return "off"
    moves = ", ".join(_moves(elt.modulus_spatial_augmentation)) or "nothing moved"
    unlabelled = f", {percent(elt.unlabelled_share)} of a batch without labels" if elt.unlabelled_sets else ""
    return f"elt_alpha {elt.elt_alpha:g}, {moves}{unlabelled}"
