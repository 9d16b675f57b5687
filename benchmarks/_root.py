"""Puts the repository root on the path; ``python benchmarks/x.py`` puts only this folder there."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
