"""Published weights: files read without executing anything in them, and made into parameters."""

from experiments.weights.convert import Report, convert, convert_file, load_params
from experiments.weights.files import read_weights

__all__ = ["Report", "convert", "convert_file", "load_params", "read_weights"]
