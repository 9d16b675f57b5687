"""The table of metrics in docs/serving.md."""

import re
from pathlib import Path

from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

DOCS = Path(__file__).parents[2] / "docs" / "serving.md"


def test_the_docs_list_every_metric_with_its_labels(client: TestClient) -> None:
    hurried = {"X-Deadline-Ms": "0.001"}
    assert client.get("/recommend?user_id=101", headers=hurried).json()["fallback"] == "deadline"
    client.get("/recommend?user_id=102")
    found = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        if family.name.endswith("_created"):  # which the client library adds by itself
            continue
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        name = family.name + ("_total" if family.type == "counter" else "")
        found[name] = labels
    rows = re.findall(r"^\| `(recsys_\w+)` \| (.*?) ?\|", DOCS.read_text(), re.MULTILINE)
    assert {name: set(re.findall(r"\w+", labels)) for name, labels in rows} == found
