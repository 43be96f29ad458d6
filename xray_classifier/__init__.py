"""Train, judge and use perceptron stacks that tell sick from healthy X-ray images."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["evaluate", "load_classifier", "predict", "train"]

if TYPE_CHECKING:
    from xray_classifier.api import evaluate, load_classifier, predict, train


def __getattr__(name: str) -> Any:
    """Import torch and the rest only when a public function is first asked for (PEP 562)."""
    if name in __all__:
        from xray_classifier import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
