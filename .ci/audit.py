"""Print the known vulnerabilities of an environment's packages: `audit.py PIP_AUDIT SITE_PACKAGES`.

Always ends with 0. A vulnerability that is published tomorrow in somebody else's package is no
reason to refuse today's change, and without the network nothing can be said.
"""

import json
import subprocess
import sys
from typing import Any

SECONDS = 30  # for each of the two services


def main(pip_audit: str, site_packages: str) -> None:
    """Ask one service after the other, until one knows the packages."""
    reasons = []
    for service in ("pypi", "osv"):
        report, reason = _asked(pip_audit, site_packages, service)
        lines = _lines(report)
        if lines:
            print(f"pip-audit, asking {service}:", *lines, sep="\n  ")
            return
        reasons.append(f"{service}: {reason or 'knows none of the packages'}")
    print("pip-audit had no data, so that nothing is known:", "; ".join(reasons))


def _asked(pip_audit: str, site_packages: str, service: str) -> tuple[dict[str, Any], str]:
    """What pip-audit reports, or nothing and the last thing that it said."""
    command = [pip_audit, "--path", site_packages, "--vulnerability-service", service]
    command += ["--format", "json", "--progress-spinner", "off", "--timeout", "10"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return {}, f"no answer in {SECONDS} s"
    # 1 is both a failure, without a report, and vulnerabilities, with one.
    if not done.stdout:
        said = done.stderr.strip() or f"status {done.returncode}"
        return {}, said.splitlines()[-1].split(":")[0]
    return json.loads(done.stdout), ""


def _lines(report: dict[str, Any]) -> list[str]:
    """How many packages were looked up and each vulnerability; empty where none could be."""
    packages = report.get("dependencies", [])
    known = [package for package in packages if "vulns" in package]
    if not known:
        return []
    found = [
        f"!!! VULNERABLE: {package['name']} {package['version']}: {vulnerability['id']}, "
        f"fixed in {', '.join(vulnerability['fix_versions']) or 'no version yet'}"
        for package in known
        for vulnerability in package["vulns"]
    ]
    return [f"{len(known)} of {len(packages)} packages known, {len(found)} vulnerabilities", *found]


if __name__ == "__main__":
    main(*sys.argv[1:])
