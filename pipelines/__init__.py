"""One module per DVC stage: `python -m pipelines.NAME [key=value ...]`."""
