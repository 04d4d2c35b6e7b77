"""What each idea alone brings: a plain network, the same with one idea, and with all of them, for the same time.

    python bench/ablation.py --data FACES --out runs/ablation --record bench/ablation.json

How many epochs fit into the minutes is measured first, all networks taking turns, and is the same for all seeds.
Trained is on the training subjects of w300, ytf68 and w300occ, measured on the held-out ones. What is in `--record`
already is not done again, so that it can be stopped and gone on with. With three seeds and 15 minutes it takes seven
hours. `bench/ablation.json` holds what was measured so far; with `--table` the command only shows that. It holds
ideas too that brought nothing and left the code, after revision bfc5d09, which trains them.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from model_accuracy import bring_in
from timed_training import Record, Work, add_arguments, measured, trained_for

from schemas.experiment import ExperimentSpec
from schemas.records import Split
from schemas.yamlspec import parse_spec
from tasks.convert import Conversion

FULL = Path(__file__).parent.parent / "examples" / "real-faces-spec.yaml"

NONE, ALL, OF_SEED = "none", "all of them", ", seed "
ORIGIN = "labels count from 0.5 and 1"
WITHOUT: dict[str, dict[str, Any]] = {
    ORIGIN: {},
    "crop of 1.15 times the box": {"dataloader.bbox_enlarge_ratio": 1.0},
    "bfloat16": {"training_precision": "float32"},
    "maps of a quarter of the side": {
        "model.model_parameters.map_stride": 2,
        "model.model_parameters.width": 32,
    },
    "heatmap cross-entropy": {"loss.heatmap_coeff": 0.0},
    "occluders": {"dataloader.augmentation_info.occluder_probability": 0.0},
    "visibility": {
        "model.model_parameters.confidence": "peak",
        "loss.visibility_coeff": 0.0,
        "loss.unflagged_are_visible": False,
    },
}
"""Idea -> what the full spec is without it."""

COLUMNS = ("w300", "ytf68", "w300occ", "hidden points", "ROC AUC", "labelled faces seen", "GMAC")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    every = [NONE, *WITHOUT, ALL]
    parser.add_argument("--ideas", nargs="+", default=every, choices=every, help="(default: all)")
    parser.add_argument("--table", action="store_true", help="train nothing, show what --record holds")
    given = parser.parse_args()
    if given.table and not (given.record and given.record.exists()):
        parser.error("--table shows what --record holds: name a file that is there")
    record = Record(given, lambda: {idea: prepared(given, idea, given.seeds[0])[0] for idea in every})
    if not given.table:
        for seed in given.seeds:
            for idea in given.ideas:
                record.result(f"{idea}{OF_SEED}{seed}", partial(trained, given, record.epochs[idea], idea, seed))
    found: dict[str, list[dict[str, float]]] = {idea: [] for idea in every}
    for name, result in record.results.items():
        found.setdefault(name.partition(OF_SEED)[0], []).append(result)
    show(found)


def trained(given: argparse.Namespace, epochs: int, idea: str, seed: int) -> dict[str, float]:
    (work, sets), folder = prepared(given, idea, seed), given.out / f"{idea.replace(' ', '-')}-{seed}"
    cost = trained_for(epochs, work, folder)
    return measured(folder, work.spec, sets) | cost


def spec_with(idea: str, seed: int) -> ExperimentSpec:
    """The plain network's spec with one idea, or with all of them."""
    full = yaml.safe_load(FULL.read_text())
    for name, changes in WITHOUT.items():
        for path, value in ({} if idea in (name, ALL) else changes).items():
            *folders, key = path.split(".")
            place = full
            for folder in folders:
                place = place[folder]
            place[key] = value
    return parse_spec(ExperimentSpec, yaml.safe_dump(full | {"random_seed": seed}), idea)


def prepared(given: argparse.Namespace, idea: str, seed: int) -> tuple[Work, dict[str, Conversion]]:
    """What to train, and the sets to measure it on."""
    spec = spec_with(idea, seed)
    sets = dict(bring_in(given.data, given.workspace, spec, shifted=idea in (ORIGIN, ALL)))
    return Work(spec, [file for found in sets.values() for file in found.files[Split.TRAIN]]), sets


def show(found: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    print(f"\n| idea | seeds | {' | '.join(COLUMNS)} |\n|---|---|{'---|' * len(COLUMNS)}")
    for idea, each in found.items():
        cells = [_cell([one[name] for one in each]) for name in COLUMNS] if each else ["-"] * len(COLUMNS)
        print(f"| {idea} | {len(each)} | {' | '.join(cells)} |")


def _cell(values: Sequence[float]) -> str:
    """Their mean, and how far they lie apart."""
    apart = f" ({max(values) - min(values):.3g} apart)" if min(values) < max(values) else ""
    mean = statistics.mean(values)
    return (f"{mean:,.0f}" if mean >= 1000 else f"{mean:.3g}") + apart


if __name__ == "__main__":
    main()
