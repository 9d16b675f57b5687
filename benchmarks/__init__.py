"""Protocols beside the main evaluation, each a command: ``python benchmarks/<name>.py``."""
