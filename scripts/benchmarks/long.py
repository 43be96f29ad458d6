"""The job with more epochs, cold. Both are run, none is extrapolated, and once, for it is long."""

from scripts.benchmarks.place import Place, Raw, Rounds, column
from scripts.benchmarks.processes import forget
from scripts.benchmarks.rows import Row, quotients
from scripts.benchmarks.whole import PLAIN, of_peer, steps_s

TITLE = "the job, 30 epochs, whole process"
EVERY_ROUND = False


def measure(place: Place) -> Raw:
    """Seconds of plain PyTorch and of ours."""
    epochs = place.numbers.long_epochs
    raw = of_peer(place, PLAIN, epochs, cold=True)
    forget(place.pictures())
    done, run = place.train(place.new_folder("cache"), epochs)
    return {**raw, "ours": done.seconds, "ours steps": steps_s(run)}


def rows(rounds: Rounds) -> list[Row]:
    """Ours against plain PyTorch."""
    ours, plain = column(rounds, "ours"), column(rounds, PLAIN)
    ours_steps, plain_steps = column(rounds, "ours steps"), column(rounds, f"{PLAIN} steps")
    return [
        Row("cold cache", ours, "s", PLAIN, plain, quotients(plain, ours), goal=15.0),
        Row(
            "first step to last",
            ours_steps,
            "s",
            PLAIN,
            plain_steps,
            quotients(plain_steps, ours_steps),
        ),
    ]
