"""One fault at a time: an operation is disturbed, and what is left is judged."""

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
from types import TracebackType
from typing import Any

from tests.faults import shim
from tests.faults.made import ROOT
from tests.faults.operations import OPERATIONS, Operation
from tests.faults.shim import Mode


@dataclasses.dataclass(frozen=True)
class Case:
    """One operation and what befalls it."""

    operation: str
    mode: Mode = Mode.COUNT
    number: int = 0  # which file operation
    limit: int | None = None  # bytes that a file may have
    seconds: float | None = None  # after which the process is killed

    def __str__(self) -> str:
        if self.seconds is not None:
            return f"{self.operation}, killed after {self.seconds:.4f} s"
        if self.limit is not None:
            return f"{self.operation}, no file above {self.limit} bytes"
        return f"{self.operation}, {self.mode.name} at {self.number}"

    def request(self, directory: pathlib.Path) -> dict[str, Any]:
        """The worker's line."""
        given = {key: value for key, value in vars(self).items() if value is not None}
        return {**given, "directory": str(directory)}


class Bench:
    """A worker, and a folder in which every case gets its own.

    Kills and errors want different workers: one that forks must not have started threads.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="faults")
        folder = pathlib.Path(self._folder.name)
        library = shim.build(folder)
        self._log = (folder / "log").open("w+")
        environment = {
            **os.environ,
            "LD_PRELOAD": str(library),
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
            # Each child to be killed compiles the checks of an anchor anew, which takes longest.
            "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        self._worker = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.worker"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self._templates: dict[str, pathlib.Path] = {}

    def __enter__(self) -> "Bench":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._worker:  # closes its pipes, at which it ends, and waits
            pass
        self._log.close()
        self._folder.cleanup()

    def run(self, case: Case) -> dict[str, Any]:
        """Disturb the operation; the answer, with what is wrong as its "failure", or None."""
        directory = self._prepared(case.operation)
        answer = self._ask(case.request(directory))
        try:
            failure = _failure(OPERATIONS[case.operation], directory, answer)
        except Exception as error:  # what is in a damaged file may raise nearly anything
            failure = f"{type(error).__name__}: {error}"
        shutil.rmtree(directory)
        return {**answer, "failure": failure}

    def _prepared(self, name: str) -> pathlib.Path:
        """A folder as it is before the operation of that name."""
        folder = pathlib.Path(self._folder.name)
        if name not in self._templates:
            template = folder / f"template {len(self._templates)}"
            template.mkdir()
            OPERATIONS[name].prepare(template / "here")
            self._templates[name] = template
        # A name of its own, so that a late thread of an earlier case is not taken for this one's.
        copy = pathlib.Path(tempfile.mkdtemp(dir=folder))
        shutil.copytree(self._templates[name], copy, dirs_exist_ok=True)
        return copy / "here"

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The worker's answer."""
        assert self._worker.stdin is not None
        assert self._worker.stdout is not None
        print(json.dumps(request), file=self._worker.stdin, flush=True)
        line = self._worker.stdout.readline()
        if not line:
            self._log.seek(0)
            raise RuntimeError(f"the worker died at {request}:\n{self._log.read()[-4000:]}")
        return json.loads(line)


def _failure(operation: Operation, directory: pathlib.Path, answer: dict[str, Any]) -> str | None:
    """What is wrong with what an operation that ended as `answer` says has left."""
    is_done = operation.is_done(directory)
    if "killed" in answer and answer["killed"] != signal.SIGKILL:
        return f"it died of signal {answer['killed']} by itself"
    if "killed" not in answer and (wrong := _dishonest(is_done, answer)):
        return wrong
    operation.go_on(directory, is_done)
    return None


def _dishonest(is_done: bool, answer: dict[str, Any]) -> str | None:
    """What is wrong with how it ended: something lost, or an error that tells nothing."""
    error = answer["error"]
    if error is None:
        return None if is_done else "it returned, and nothing was done"
    if not answer["fired"] and not error["says_cause"]:
        return f"it failed undisturbed: {error['text']}"
    if not error["typed"]:
        return f"an error of no type of ours: {error['text']}"
    if not error["says_cause"]:
        return f"an error without its cause: {error['text']}"
    return None if error["says_where"] else f"an error that names no file: {error['text']}"
