"""What is done when the process is asked to stop, before the server does what it does.

Servers tell an open stream nothing: uvicorn waits for it without end, gunicorn's threads for as
long as its graceful timeout, `flask run` cuts it.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def before_stop(drain: Callable[[], None]) -> None:
    """Has `drain` called at SIGTERM and SIGINT, then what stood there until now.

    It runs in a signal handler and so takes no lock. Outside of the main thread nothing changes,
    nor where a signal is ignored or another language's: whoever embeds us drains.
    """
    for number in SIGNALS:
        before = signal.getsignal(number)
        if before in (signal.SIG_IGN, None):
            continue

        def handler(n: int, frame: FrameType | None, before: object = before) -> None:
            drain()
            if callable(before):
                before(n, frame)
            else:
                signal.signal(n, signal.SIG_DFL)
                signal.raise_signal(n)

        try:
            signal.signal(number, handler)
        except ValueError:  # not the main thread
            return
