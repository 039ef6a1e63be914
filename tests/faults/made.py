"""Of what, when and on what figures are made."""

import os
import pathlib
import platform
import subprocess
import time
from typing import Any

import jax
import orbax.checkpoint

ROOT = pathlib.Path(__file__).parents[2]


def made() -> dict[str, Any]:
    """The commit, the date, the versions and the machine; to be asked before anything is tried."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--abbrev=12"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return {
        "commit": commit.stdout.strip(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "versions": {
            "python": platform.python_version(),
            "jax": jax.__version__,
            "orbax-checkpoint": orbax.checkpoint.__version__,
        },
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}",
    }
