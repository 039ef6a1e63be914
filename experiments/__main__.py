"""`python -m experiments`: list, run, compare, tune and report."""

from experiments.cli import main

if __name__ == "__main__":
    main()
