"""The estimator over a mesh: its tests run where there are eight devices."""

import os
import subprocess
import sys
from pathlib import Path


def test_on_eight_devices() -> None:
    tests = Path(__file__).with_name("on_eight_devices.py")
    # Compiling is most of what these tests take, and the numbers are the same without.
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests)],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True, text=True, timeout=480, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
