"""A process with the shim in it, which does one operation per line that it reads.

Errors are met in this process, one after the other, as a long program would. To be killed, it forks
once per case, after the imports, which take seconds, and before anything has started a thread.
"""

import errno
import json
import os
import pathlib
import resource
import signal
import sys
import time
from typing import Any

from tests.faults.operations import OPERATIONS
from tests.faults.shim import Mode, Shim

CAUSES = [os.strerror(number) for number in (errno.EIO, errno.ENOSPC, errno.EFBIG)]


def main() -> None:
    """Answer requests until there are no more."""
    shim, has_met_errors = Shim(), False
    for line in sys.stdin:
        request = json.loads(line)
        is_fatal = request["mode"] in (Mode.KILL, Mode.TEAR) or "seconds" in request
        has_met_errors |= not is_fatal
        # A thread that holds a lock at the fork would hold it for ever in the child.
        assert not (is_fatal and has_met_errors), "it has threads now, and cannot fork"
        answer = killed(shim, request) if is_fatal else done(shim, request)
        print(json.dumps(answer), flush=True)


def done(shim: Shim, request: dict[str, Any]) -> dict[str, Any]:
    """Do the operation here; how it ended."""
    directory, limit = request["directory"], request.get("limit")
    error = None
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    began = time.perf_counter()
    shim.arm(directory, request["number"], Mode(request["mode"]))
    try:
        OPERATIONS[request["operation"]].act(pathlib.Path(directory))
    except Exception as raised:
        error = raised
    seen, took = shim.disarm(), time.perf_counter() - began
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return {
        "seen": seen,
        "fired": shim.fired(),
        "took": took,
        "error": error and described(error, directory, OPERATIONS[request["operation"]].raises),
    }


def described(error: Exception, directory: str, raises: type[Exception]) -> dict[str, Any]:
    """What a user can tell of an error in `directory`."""
    text = str(error)
    return {
        "text": f"{type(error).__name__}: {text}",
        "typed": isinstance(error, raises),
        "says_cause": any(cause in text for cause in CAUSES),
        "says_where": directory in text,
    }


def killed(shim: Shim, request: dict[str, Any]) -> dict[str, Any]:
    """Do the operation in a child, which the shim kills, or a clock; how it ended."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, b"begun\n")
        answer = done(shim, request)
        os.write(writer, json.dumps(answer).encode())
        os._exit(0)
    os.close(writer)
    if "seconds" in request:
        os.read(reader, 6)
        time.sleep(request["seconds"])
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as pipe:
        text = pipe.read().removeprefix(b"begun\n")
    if os.WIFSIGNALED(status) and not text:
        return {"killed": os.WTERMSIG(status)}
    return json.loads(text)


if __name__ == "__main__":
    main()
