"""The hyperparameter search without Ray: space, study, objective, results, plots."""
