"""Robust accuracy of trained models: suites, cascade, checks, curves, records, metrics."""

from components.evaluation.adversarial_set import export_adversarial, read_adversarial, replay
from components.evaluation.evaluate import Evaluation, evaluate_model
from components.evaluation.gallery import Gallery, gallery_of, read_gallery
from components.evaluation.robust_counts import from_counts, robust_accuracy, robust_counts
from components.evaluation.suite import SUITES, Entry

__all__ = [
    "SUITES",
    "Entry",
    "Evaluation",
    "Gallery",
    "evaluate_model",
    "export_adversarial",
    "from_counts",
    "gallery_of",
    "read_adversarial",
    "read_gallery",
    "replay",
    "robust_accuracy",
    "robust_counts",
]
