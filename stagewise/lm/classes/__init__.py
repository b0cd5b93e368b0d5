"""Classes of target tokens, given as data: patterns on token strings, and predicates."""

from stagewise.lm.classes.bigrams import BigramTable
from stagewise.lm.classes.coverage import Coverage, class_coverage
from stagewise.lm.classes.defaults import DEFAULT_CLASSES
from stagewise.lm.classes.groups import class_groups
from stagewise.lm.classes.spec import ClassSpec
from stagewise.lm.classes.token_text import TokenText
from stagewise.lm.classes.vocabulary import Vocabulary, read_vocabulary

__all__ = [
    "DEFAULT_CLASSES",
    "BigramTable",
    "ClassSpec",
    "Coverage",
    "TokenText",
    "Vocabulary",
    "class_coverage",
    "class_groups",
    "read_vocabulary",
]
