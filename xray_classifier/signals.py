"""Ctrl-C, SIGTERM and SIGUSR1 as a request to finish the step, save and leave."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

STOP_SIGNALS = tuple(
    signal.Signals[name]
    for name in ("SIGINT", "SIGTERM", "SIGUSR1")
    if name in signal.Signals.__members__
)
"""Ctrl-C, the end of a service, and what clusters send ahead of it; Windows knows no SIGUSR1."""


@dataclass
class StopRequest:
    """Which signal asked to stop; None while none did."""

    signal_name: str | None = None


class StopNow(KeyboardInterrupt):
    """A signal other than Ctrl-C that came while no step was taken.

    Args:
        signal_name: SIGTERM or SIGUSR1.
    """

    def __init__(self, signal_name: str) -> None:
        super().__init__(signal_name)
        self.signal_name = signal_name


def signal_of(error: KeyboardInterrupt) -> str:
    """The signal behind an interruption."""
    return error.signal_name if isinstance(error, StopNow) else "SIGINT"


@contextmanager
def leave_on_signals() -> Iterator[None]:
    """Let SIGTERM and SIGUSR1 interrupt as Ctrl-C does, wherever the program is.

    Inside `stop_on_signals` that has the word. Outside the main thread nothing changes.

    Raises:
        StopNow: Such a signal came.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        raise StopNow(signal.Signals(number).name)

    others = [number for number in STOP_SIGNALS if number != signal.SIGINT]
    before = {number: signal.signal(number, handle) for number in others}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stop_on_signals(notice: Callable[[str], None]) -> Iterator[StopRequest]:
    """Turn STOP_SIGNALS into a flag that the training loop reads after each step.

    A second Ctrl-C leaves at once, as without this. Outside the main thread, where Python allows no
    handlers, the flag just never rises.

    Args:
        notice: Told in one sentence what happens now.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if request.signal_name is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.signal_name = signal.Signals(number).name
        more = "; Ctrl-C again to leave at once" if number == signal.SIGINT else ""
        notice(f"{request.signal_name}: finishing this step and saving{more}")

    before = {number: signal.signal(number, handle) for number in STOP_SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
