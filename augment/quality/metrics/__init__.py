"""The metrics of evaluate.py, a module a kind; `METRICS` holds them by name, in the order in which they are shown."""

# ruff: noqa: F401
# isort: off
from augment.quality.metrics.registry import METRICS, Metric, Run, Selection, clip_figure, register
from augment.quality.metrics import distributions
from augment.quality.metrics import sequence
from augment.quality.metrics import diversity
from augment.quality.metrics import class_control
from augment.quality.metrics import retrieval
from augment.quality.metrics import copies
# isort: on
