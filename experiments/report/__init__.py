"""Reports: one self-contained page, every table and picture made from the results' JSON alone."""

from experiments.report.papers import Source
from experiments.report.writer import write_report

__all__ = ["Source", "write_report"]
