"""The library: data, models, attacks, evaluation and training; knows nothing of DVC or MLflow."""
