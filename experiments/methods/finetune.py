"""Fine-tuning: each task is learned with nothing to hold on to the ones before."""

import dataclasses

from experiments.methods.base import Method


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTune(Method):
    """Fine-tuning: no protection of earlier tasks. The lower reference."""


METHODS = {"finetune": FineTune()}
