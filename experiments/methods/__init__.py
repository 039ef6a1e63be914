"""The methods that are compared, one file each."""

from experiments.methods.base import Learned, Method
from experiments.methods.finetune import FineTune
from experiments.methods.joint import Joint
from experiments.methods.mas import MAS

__all__ = ["MAS", "FineTune", "Joint", "Learned", "Method"]
