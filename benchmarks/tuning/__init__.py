"""Hyper-parameter search on validation events alone: the parts of ``benchmarks/tune.py``."""
