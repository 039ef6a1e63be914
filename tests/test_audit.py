"""CI's audit says what is known, and never takes silence for safety."""

import pathlib
import subprocess
import sys

import pytest

AUDIT = pathlib.Path(__file__).parents[1] / ".ci" / "audit.py"
KNOWN = """{"dependencies": [
  {"name": "old", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"]}]},
  {"name": "new", "version": "2.0", "vulns": []},
  {"name": "mas-jax", "skip_reason": "not found"}
]}"""
UNKNOWN = '{"dependencies": [{"name": "old", "skip_reason": "not found"}]}'


def audit(tmp_path, report, *, status=0, error=""):
    """What the audit prints where pip-audit answers so."""
    pip_audit = tmp_path / "pip-audit"
    pip_audit.write_text(
        f"#!{sys.executable}\nimport sys\nprint({report!r}, end='')\nsys.stderr.write({error!r})\n"
        f"sys.exit({status})\n"
    )
    pip_audit.chmod(0o755)
    command = [sys.executable, AUDIT, pip_audit, tmp_path]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_vulnerability_is_named_and_ends_well(tmp_path):
    printed = audit(tmp_path, KNOWN, status=1)
    assert "2 of 3 packages known, 1 vulnerabilities" in printed
    assert "VULNERABLE: old 1.0: PYSEC-1, fixed in 1.1" in printed


@pytest.mark.parametrize(
    ("report", "status", "error", "said"),
    [
        (UNKNOWN, 0, "No known vulnerabilities found", "knows none of the packages"),
        ("", 1, "requests.ConnectionError: no such host", "requests.ConnectionError"),
    ],
)
def test_no_data_is_said_to_be_none(tmp_path, report, status, error, said):
    printed = audit(tmp_path, report, status=status, error=error)
    assert printed.count("\n") == 1
    assert "nothing is known" in printed
    assert printed.count(said) == 2
