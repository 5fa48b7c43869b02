"""What in a dataset's cached activations predicts steerability, and whether it does so out of sample."""

from __future__ import annotations

from steerstats.predictors.associations import RankAssociations, dataset_associations, within_dataset_associations
from steerstats.predictors.candidates import DatasetPredictors, dataset_predictors, difference_cosine
from steerstats.predictors.prediction import CrossValidated, cross_validated_ridge
from steerstats.predictors.separation import CrossFit, auc, crossfit, d_prime

__all__ = [
    "CrossFit",
    "CrossValidated",
    "DatasetPredictors",
    "RankAssociations",
    "auc",
    "cross_validated_ridge",
    "crossfit",
    "d_prime",
    "dataset_associations",
    "dataset_predictors",
    "difference_cosine",
    "within_dataset_associations",
]
