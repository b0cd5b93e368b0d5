"""Language models: data with and without induction, token groups, induction metrics and a trainable module."""

from stagewise.lm.data import SyntheticData
from stagewise.lm.module import CausalLM
from stagewise.lm.text import TextData

__all__ = ["CausalLM", "SyntheticData", "TextData"]
