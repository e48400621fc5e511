"""Robust accuracy of trained models: suites, cascade, checks, curves, records, metrics."""
