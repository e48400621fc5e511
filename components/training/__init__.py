"""Adversarial training: methods, one step, one loop, and the worker that runs it on Ray Train."""
