"""Tables in Markdown files that a command prints: each under a comment that names its command.

    <!-- table: python -m experiments.analyses.two_tasks experiments/recorded/two_tasks -->

What follows, from the next line that is not empty, is what the command prints.
"""

import importlib
import re
import shlex

import pytest
import tyro

MARKER = re.compile(r"^<!-- table: (.*?) -->$", flags=re.MULTILINE)


def commands(text: str) -> list[str]:
    """The commands that the comments in `text` name."""
    return MARKER.findall(text)


def shown(text: str, command: str, count: int) -> list[str]:
    """The `count` lines under the comment that names `command`."""
    after = text.split(f"<!-- table: {command} -->\n", maxsplit=1)[1]
    return after.lstrip("\n").splitlines()[:count]


def printed(command: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines that `command`, of a module of ours, prints.

    Raises ValueError where it is not `python -m experiments.…`.
    """
    python, option, module, *arguments = shlex.split(command)
    if (python, option) != ("python", "-m") or not module.startswith("experiments."):
        raise ValueError(f"a table's command begins with python -m experiments.…, got {command}")
    capsys.readouterr()
    tyro.cli(importlib.import_module(module).main, args=arguments)
    return capsys.readouterr().out.rstrip("\n").splitlines()
