"""Sequence classifiers: mmaction2's recognisers for grey clips, built, trained, saved, loaded and asked.

Importing this costs torch only; mmaction2 is imported when the first classifier is built.
"""

from ctrlgenaug.classifiers.checkpoint import load, probabilities, save, score, scorer
from ctrlgenaug.classifiers.clips import standardise
from ctrlgenaug.classifiers.model import Classifier, build
from ctrlgenaug.classifiers.zoo import NAMES, known

__all__ = [
    "NAMES",
    "Classifier",
    "build",
    "known",
    "load",
    "probabilities",
    "save",
    "score",
    "scorer",
    "standardise",
]
