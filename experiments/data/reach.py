"""Whether a file on the network can be had, found out in seconds."""

import queue
import threading

import requests

PROBE_SECONDS = 10.0


def why_unreachable(url: str) -> str | None:
    """What keeps `url` from being fetched, within PROBE_SECONDS; None if nothing does.

    TFDS tries each download eleven times, which takes minutes where there is no network.
    """
    answer: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def ask() -> None:
        try:
            # GET, of which nothing is read: some servers refuse HEAD.
            with requests.get(url, timeout=PROBE_SECONDS, stream=True) as answered:
                answered.raise_for_status()
            answer.put(None)
        except requests.RequestException as error:
            answer.put(innermost(error))

    # A thread, because the timeout of requests does not cover the look-up of the host's name.
    threading.Thread(target=ask, daemon=True).start()
    try:
        return answer.get(timeout=PROBE_SECONDS)
    except queue.Empty:
        return f"no answer from {url} within {PROBE_SECONDS:g} seconds"


def innermost(error: Exception) -> str:
    """What went wrong, in a line, without the layers of requests and urllib3 around it."""
    cause = error.args[0] if error.args else error
    return str(getattr(cause, "reason", None) or cause).split("\n")[0].rstrip(":")
