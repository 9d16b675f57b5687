"""A trained model on disk: tensors, tables, an index, and a manifest that vouches for them.

``<root>/<name>/`` holds ``manifest.json``, ``*.safetensors``, ``*.parquet``, ``index.faiss`` and
perhaps ``*.onnx``; ``metrics.json`` and ``report.html`` come later. Nothing in it is pickled, names
code or a path: a bundle may come from elsewhere. What is read of it is bounded by the size of its
files.
"""

from recsys.bundle.files import (
    METRICS_FILE,
    Bundle,
    add_file,
    check_bundle_name,
    read_bundle,
    read_metrics,
    write_bundle,
    write_metrics,
)
from recsys.bundle.manifest import MANIFEST_FILE, Manifest, list_bundles, read_manifest
from recsys.bundle.placing import LATEST, check_latest, make_latest

__all__ = [
    "LATEST",
    "MANIFEST_FILE",
    "METRICS_FILE",
    "Bundle",
    "Manifest",
    "add_file",
    "check_bundle_name",
    "check_latest",
    "list_bundles",
    "make_latest",
    "read_bundle",
    "read_manifest",
    "read_metrics",
    "write_bundle",
    "write_metrics",
]
