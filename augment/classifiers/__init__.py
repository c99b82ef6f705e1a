"""Sequence classifiers: mmaction2's recognisers for grey clips, built, trained, saved, loaded and asked.

Importing this costs torch only; mmaction2 is imported when the first classifier is built.
"""

from augment.classifiers.checkpoint import load, probabilities, save, score, score_and_features, scorer
from augment.classifiers.clips import standardise
from augment.classifiers.model import Classifier, build
from augment.classifiers.zoo import NAMES, known

__all__ = [
    "NAMES",
    "Classifier",
    "build",
    "known",
    "load",
    "probabilities",
    "save",
    "score",
    "score_and_features",
    "scorer",
    "standardise",
]
