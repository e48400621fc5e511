"""The hyperparameter search without Ray: spaces, proposals, objective, budget, ledger, results."""
