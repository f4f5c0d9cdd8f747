"""For all tests: processes start as from a terminal, however the tests themselves were started."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Take back what a shell does to a job in the background (SIGINT ignored) and what nohup does (SIGHUP ignored).

    What is ignored is inherited, and a shell cannot trap a signal that it was born without. A handler of ours is not
    inherited: our children have the system's own disposition.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)  # still not the end of us
