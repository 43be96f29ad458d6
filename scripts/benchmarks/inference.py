"""`predict_logits` on cached arrays, which `evaluate` and `predict` use, against the GEMM rate."""

from scripts.benchmarks.counting import forward_flops
from scripts.benchmarks.machine import best_rate, best_s
from scripts.benchmarks.place import Place, Raw, Rounds, column
from scripts.benchmarks.rows import Row, quotients
from scripts.benchmarks.synthetic import images_of, network
from xray_classifier.data.dataset import Standardize
from xray_classifier.inference import predict_logits

TITLE = "inference on cached arrays, fp32"
EVERY_ROUND = True


def measure(place: Place) -> Raw:
    """Operations a second of a large product, and of inference at each size."""
    numbers = place.numbers
    raw = Raw(gemm=best_rate("fp32", numbers.gemm_sides, numbers.tried_s / 2))
    for side in numbers.sides_px:
        images, model = images_of(numbers.inferred, side), network(side, numbers.hidden)
        standardize = Standardize(0.5, 0.29)
        seconds = best_s(lambda: predict_logits(model, standardize, images), numbers.tried_s)  # noqa: B023 - called at once
        flops = forward_flops((side * side, *numbers.hidden, 1), numbers.inferred)
        raw[f"{side} px"] = flops / seconds
    return raw


def rows(rounds: Rounds) -> list[Row]:
    """Each size as a share of the rate of a large product."""
    gemm = column(rounds, "gemm")
    return [
        Row(
            key,
            tuple(rate / 1e9 for rate in column(rounds, key)),
            "GFLOP/s",
            "GEMM",
            tuple(rate / 1e9 for rate in gemm),
            quotients(column(rounds, key), gemm),
            "%",
            0.70,
        )
        for key in rounds[0]
        if key != "gemm"
    ]
