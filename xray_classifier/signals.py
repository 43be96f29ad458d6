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
