"""The queries of the Grafana dashboard, against a real server and by a real Prometheus."""

import json
import math
import re
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.test_serve_faults import ask, serving

DASHBOARD = json.loads((Path(__file__).parents[1] / "docs" / "grafana.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def send_traffic(address: str) -> None:
    """Requests of all kinds: new and cached lists, a history, wrong ones, one that must hurry."""
    for user in (101, 102, 103):
        ask(address, f"/recommend?user_id={user}")
        ask(address, f"/recommend?user_id={user}")
    history = urllib.request.Request(
        f"http://{address}/recommend",
        json.dumps({"history": [1001, 1002]}).encode(),
        {"Content-Type": "application/json"},
    )
    urllib.request.urlopen(history, timeout=10).close()
    for path in ("/recommend?user_id=x", "/nowhere"):
        with pytest.raises(urllib.error.HTTPError):
            ask(address, path)
    hurried = urllib.request.Request(
        f"http://{address}/recommend?user_id=104", headers={"X-Deadline-Ms": "0.001"}
    )
    with urllib.request.urlopen(hurried, timeout=10) as response:
        assert json.load(response)["fallback"] == "deadline"


def test_queries_name_metrics_and_labels_that_there_are(untrained_bundle: Path) -> None:
    with serving(untrained_bundle) as (_, address):
        send_traffic(address)
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as response:
            page = response.read().decode()
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    assert len(QUERIES) > 12
    for query in QUERIES:
        names = re.findall(r"recsys_\w+", query)
        assert names
        assert set(names) <= set(labels), query
        known = set.union(*(labels[name] for name in names))
        used = {
            label.strip() for by in re.findall(r"by \(([^)]*)\)", query) for label in by.split(",")
        }
        used |= set(re.findall(r"[{,]\s*(\w+)\s*=", query))
        assert used <= known, query


def test_every_panel_asks_the_chosen_data_source() -> None:
    assert [one["name"] for one in DASHBOARD["templating"]["list"]] == ["datasource"]
    for panel in DASHBOARD["panels"]:
        assert panel["title"]
        assert {t["datasource"]["uid"] for t in panel["targets"]} == {"${datasource}"}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs prometheus")
def test_prometheus_answers_every_query(untrained_bundle: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with serving(untrained_bundle) as (_, address):
        settings = tmp_path / "prometheus.yml"
        settings.write_text(
            "global: {scrape_interval: 1s}\n"
            "scrape_configs:\n"
            f"  - {{job_name: recsys, static_configs: [{{targets: ['{address}']}}]}}\n"
        )
        command = [
            *(
                "prometheus",
                f"--config.file={settings}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
            ),
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as prometheus:
            try:
                until = time.monotonic() + 60
                missing = QUERIES
                while missing and time.monotonic() < until:
                    send_traffic(address)
                    time.sleep(1)
                    missing = [query for query in missing if not answered(port, query)]
            finally:
                prometheus.terminate()
    assert not missing


def answered(port: int, query: str) -> bool:
    """Whether there is a result, and every value in it is a finite number."""
    text = urllib.parse.urlencode({"query": query.replace("$__rate_interval", "10s")})
    try:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{port}/api/v1/query?{text}", timeout=10
        ) as response:
            result = json.load(response)["data"]["result"]
    except OSError:  # not up yet
        return False
    return bool(result) and all(math.isfinite(float(one["value"][1])) for one in result)
