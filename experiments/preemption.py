"""Signals that ask a run to stop: seen at once, obeyed at the next boundary."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: nothing is wrong, and the same command goes on."""

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Preempted(BaseException):
    """A run stops because a signal asked for it; what it has learned is kept.

    No Exception, like KeyboardInterrupt: whoever turns errors into others does not mean it.
    """


_asked = threading.Event()
_waits = threading.Event()
"""Set while there is something that a stop between boundaries would lose."""


def is_asked() -> bool:
    """Whether a signal has asked this process to stop."""
    return _asked.is_set()


def end_at_once() -> None:
    """SIGTERM and SIGINT end this process with EXIT_CODE: there is nothing to keep yet."""
    for number in SIGNALS:
        signal.signal(number, lambda *_: os._exit(EXIT_CODE))


@contextlib.contextmanager
def caught(*, prompt: bool) -> Iterator[None]:
    """SIGTERM and SIGINT ask to stop; a second signal ends the process at once.

    Whoever passes a boundary obeys (`is_asked`). Elsewhere, as while data is loaded, the first
    signal raises Preempted at once if `prompt`, outside of `until_boundary`. Of several processes
    none may be prompt: the others would wait for it. Other threads than the main one get no
    signals, and in them nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _asked.clear()
    _waits.clear() if prompt else _waits.set()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    # Python runs a handler when compiled code returns, which an epoch does after minutes; the
    # signal's number in a pipe wakes a thread before.
    watcher = threading.Thread(target=_watch, args=(reading,), daemon=True)
    watcher.start()
    before = {number: signal.signal(number, _stop_if_prompt) for number in SIGNALS}
    pipe_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(pipe_before)
        for number, handler in before.items():
            # None stands for a handler that Python did not install and cannot put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        os.close(writing)
        watcher.join()
        os.close(reading)
        _asked.clear()


@contextlib.contextmanager
def until_boundary() -> Iterator[None]:
    """A signal does not interrupt what is done within; who passes a boundary looks for it."""
    waited = _waits.is_set()
    _waits.set()
    try:
        yield
    finally:
        if not waited:
            _waits.clear()


def _stop_if_prompt(*_: object) -> None:
    """The handler: runs in the main thread, between two steps of Python."""
    if not _waits.is_set():
        raise Preempted


def _watch(reading: int) -> None:
    """Take signals' numbers from a pipe until it is closed."""
    while number := int.from_bytes(os.read(reading, 1), "big"):
        if number not in SIGNALS:
            continue
        name = signal.Signals(number).name
        if _asked.is_set():
            _say(f"{name} again: stopped at once")
            os._exit(128 + number)
        _asked.set()
        _say(f"{name}: stopping as soon as what was learned can be kept; again to stop at once")


def _say(text: str) -> None:
    """A line for whoever sent the signal, past any lock that the main thread may hold."""
    with contextlib.suppress(OSError):
        os.write(2, f"{text}\n".encode())
