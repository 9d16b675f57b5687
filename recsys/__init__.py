"""Two-stage recommender: two-tower retrieval through FAISS, cross-encoder re-ranking over text."""

import os

# From 1.29 on, Linux builds of ONNX Runtime report to their makers unless this is set before they
# are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
