"""The loss of each step, read off the sums that a run keeps for its epochs."""

from xray_classifier.callbacks import Callback
from xray_classifier.history import Run


class StepLosses(Callback):
    """Keep the mean loss of each step's images.

    A run knows the sum over the unfinished epoch; a step is the difference of two such sums.

    Attributes:
        values: One loss per step seen, oldest first.
    """

    def __init__(self) -> None:
        self.values: list[float] = []
        self._before = (0.0, 0)

    def on_train_start(self, run: Run) -> None:
        """A resumed run may stand inside an epoch."""
        self._before = (run.loss_sum, run.images_seen)

    def on_loss_known(self, run: Run) -> None:
        """Take the difference."""
        loss_sum, images = self._before if run.batch > 1 else (0.0, 0)
        self.values.append((run.loss_sum - loss_sum) / (run.images_seen - images))
        self._before = (run.loss_sum, run.images_seen)
