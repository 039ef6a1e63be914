"""`python -m experiments`: list, run, compare, tune and report."""

import sys

from experiments import preemption

if sys.argv[1:2] in (["run"], ["compare"], ["tune"]):
    preemption.end_at_once()

from experiments.cli import main

if __name__ == "__main__":
    main()
