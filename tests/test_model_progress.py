import io

from rich.console import Console

from model.checkpoint import EpochResult
from model.progress import TerminalProgress


def show(*, terminal: bool) -> str:
    text = io.StringIO()
    with TerminalProgress(Console(file=text, force_terminal=terminal, width=140)) as progress:
        progress.begin(epochs=3, epochs_done=1, steps=2)
        for loss in (2.5, 1.25):
            progress.step(loss)
        progress.epoch(EpochResult(2, 4, 1.875, {}, 1.9, 2.345, 1e-3, 7.4, True))
        progress.step(1.0)
    return text.getvalue()


def test_without_a_terminal_an_epoch_is_a_line():
    assert show(terminal=False) == "epoch 2/3 loss 1.8750 validation 2.35 px lr 1.00e-03 7 s best\n"


def test_in_a_terminal_a_bar_shows_epoch_loss_error_and_time():
    shown = show(terminal=True)
    assert "epoch 3/3" in shown and "loss 1.000 validation 2.35 px" in shown and "5/6" in shown
