from types import SimpleNamespace

from stagewise.callbacks.intervention import StepLines


class Memory:
    def __init__(self):
        self.points = []

    def log_metrics(self, values, step):
        self.points.append((step, values["a"]))


def test_changes_are_logged_once_after_the_previous_value():
    memory = Memory()
    trainer = SimpleNamespace(loggers=[memory], callback_metrics={})
    lines = StepLines()
    for step, value in enumerate([1.0, 1.0, 1.0, 4.0, 5.0, 5.0]):
        lines.log(trainer, {"a": value}, step)
    lines.end(trainer, 6)
    lines.end(trainer, 6)
    assert memory.points == [(0, 1.0), (2, 1.0), (3, 4.0), (4, 5.0), (6, 5.0)]
    assert trainer.callback_metrics["a"].item() == 5.0
