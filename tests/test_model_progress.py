import io
from collections.abc import Sequence

import pytest
from rich.console import Console

from model.checkpoint import EpochResult
from model.progress import Plan, TerminalProgress, Watcher, Watchers


def show(*, terminal: bool, times: Sequence[float] = (0.0,) * 9) -> str:
    text, clock = io.StringIO(), iter(times)
    console = Console(file=text, force_terminal=terminal, width=140)
    with TerminalProgress(console, clock=lambda: next(clock)) as progress:
        progress.begin(Plan(epochs=3, epochs_done=1, steps=2, faces=8, log_every_s=10))
        for number, loss in ((3, 2.5), (4, 1.25)):
            progress.step(number, {"loss": loss}, 1e-3)
        progress.epoch(EpochResult(2, 4, 1.875, {}, 1.9, 2.345, 1e-3, 7.4, True))
        progress.step(5, {"loss": 1.0}, 5e-4)
    return text.getvalue()


def test_without_a_terminal_an_epoch_is_a_line():
    assert show(terminal=False) == "epoch 2/3 loss 1.8750 validation 2.35 px lr 1.00e-03 7 s best\n"


def test_without_a_terminal_there_is_a_line_every_so_many_seconds():
    """Begin at 100 s; steps end at 104 s, 110 s (a line, which asks again) and 119 s."""
    told = show(terminal=False, times=(100, 104, 110, 110, 119)).splitlines()
    assert told[0] == "epoch 2/3 step 4/6 loss 1.2500 lr 1.00e-03 2 faces/s 0:00:10 left"
    assert len(told) == 2 and told[1].startswith("epoch 2/3 loss 1.8750")


def test_in_a_terminal_a_bar_shows_epoch_loss_error_and_time():
    shown = show(terminal=True)
    assert "epoch 3/3" in shown and "loss 1.000 validation 2.35 px" in shown and "5/6" in shown
    assert "faces/s" not in shown


def test_several_watchers_are_told_all_and_left_in_turn():
    told = []

    class Listener(Watcher):
        def __init__(self, name):
            self.name = name

        def __getattribute__(self, call):
            if call in ("begin", "step", "trained_on", "validated_on", "epoch"):
                return lambda *_: told.append((self.name, call))
            return super().__getattribute__(call)

        def __exit__(self, kind, *_):
            told.append((self.name, kind))

    with pytest.raises(ValueError, match="no"), Watchers([Listener("a"), Listener("b")]) as watchers:
        watchers.begin(None)
        watchers.step(1, {}, 0.1)
        watchers.trained_on({})
        watchers.validated_on(None, None, None)
        watchers.epoch(None)
        raise ValueError("no")
    calls = ("begin", "step", "trained_on", "validated_on", "epoch")
    assert told == [(name, call) for call in calls for name in "ab"] + [("b", ValueError), ("a", ValueError)]
