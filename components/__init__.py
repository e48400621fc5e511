"""The library: data, models, attacks, training, evaluation; no MLflow, no DVC, no commands."""

import os

# On some CPUs the matrix kernels of MKL round a row by where it lies in memory, so that a clip's
# verdict would hang on its place in the batch. MKL reads this before its first product.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
