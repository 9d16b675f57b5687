"""What the server must not do, and what it says with every answer."""

import json
import subprocess
import sys
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml
from fastapi.testclient import TestClient

from recsys.api.app import create_app
from recsys.api.models import ModelStore
from tests.test_serve_faults import serving

ROOT = Path(__file__).parents[1]

WATCHED = """
import pickle, sys
from pathlib import Path

unpickled = []
sys.addaudithook(lambda event, details: event == "pickle.find_class" and unpickled.append(details))

from fastapi.testclient import TestClient
import recsys.api.server
import torch

def forbidden(*args, **kwargs):
    raise AssertionError("unpickled")

del unpickled[:]  # what libraries do as they are imported is not about bundles
torch.load = pickle.load = pickle.loads = pickle.Unpickler = forbidden
from recsys.api.app import create_app
from recsys.api.models import ModelStore
with TestClient(create_app(ModelStore(Path(sys.argv[1]), "cpu"))) as client:
    answer = client.get("/recommend?user_id=101&top_k=3")
    assert answer.json()["source"] == "reranked", answer.text
    assert client.post("/recommend", json={"history": [1001]}).status_code == 200
    assert client.post("/admin/reload").status_code in (200, 403), answer.text
assert not unpickled, unpickled
print("served")
"""


def test_nothing_is_unpickled_while_a_bundle_is_loaded_and_served(untrained_bundle: Path) -> None:
    command = [sys.executable, "-c", WATCHED, str(untrained_bundle)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "served", done.stderr


def test_the_hook_sees_what_is_unpickled() -> None:
    """Else the test above could not fail."""
    code = WATCHED.split("from fastapi")[0] + (
        "import datetime\npickle.loads(pickle.dumps(datetime.date(2000, 1, 1)))\n"
        "assert unpickled\nprint('seen')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "seen", done.stderr


def test_no_serving_module_names_pickle_or_torch_load() -> None:
    """Training alone reads Lightning's checkpoints, which it has written itself."""
    files = [path for path in (ROOT / "recsys").rglob("*.py") if "training" not in path.parts]
    assert len(files) > 50
    for path in files:
        text = path.read_text()
        assert "torch.load" not in text, path
        assert "import pickle" not in text, path


@pytest.fixture
def client(untrained_bundle: Path) -> TestClient:
    return TestClient(
        create_app(ModelStore(untrained_bundle, "cpu")), raise_server_exceptions=False
    )


ASKED = {
    200: ("GET", "/recommend?user_id=101"),
    404: ("GET", "/nowhere"),
    405: ("DELETE", "/recommend"),
    413: ("POST", "/recommend"),
    422: ("GET", "/recommend?user_id=x"),
    403: ("GET", "/admin/models"),
    500: ("GET", "/health/ready"),
}


@pytest.mark.parametrize("status", ASKED)
def test_every_answer_closes_the_door(
    client: TestClient, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if status == 500:
        monkeypatch.setattr("recsys.api.app.Ready", None)
    method, path = ASKED[status]
    body = b"x" * 2_000_000 if status == 413 else None
    headers = {"Content-Type": "application/json", "Origin": "http://testserver"}
    with client:
        answer = client.request(method, path, content=body, headers=headers)
    assert answer.status_code == status
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Request-ID"]
    assert "Traceback" not in answer.text
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_other_origins_are_not_let_in(client: TestClient) -> None:
    asked = {
        "Origin": "https://evil.test",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    with client:
        answer = client.options("/recommend", headers=asked)
    assert answer.status_code == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_by_default_the_server_answers_this_machine_alone() -> None:
    settings = yaml.safe_load((ROOT / "configs" / "serve.yaml").read_text())
    assert settings["host"] == "127.0.0.1"


def test_a_real_server_believes_no_proxy_and_takes_any_encoded_id(
    string_id_bundle: Path, tmp_path: Path
) -> None:
    """What a server does before the application is asked: who the client is, and what the path."""
    url = f"sqlite+aiosqlite:///{tmp_path}/e.db"
    with (
        serving(string_id_bundle, f"store.url={url}") as (_, address),
        closing(HTTPConnection(address, timeout=20)) as connection,
    ):

        def asked(method: str, path: str, **headers: str) -> tuple[int, dict]:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, None, sent)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

        for told in ("127.0.0.1", "192.0.2.1"):
            status, refusal = asked("GET", "/features?user_id=u1", X_Forwarded_For=told)
            assert status == 403
            assert "x-forwarded-for of a proxy" in refusal["detail"]
        assert asked("DELETE", "/users/u1", Host="rebind.evil.test")[0] == 403
        assert asked("DELETE", "/users/u1", Sec_Fetch_Site="cross-site")[0] == 403
        assert asked("DELETE", "/users/u1/")[0] == 422
        assert asked("GET", "/recommend?user_id=u1")[1]["source"] == "retrieved"
        for name in ("a/b", "..", "a/../b", "%2F", "a\nb", "/", "C:\\x", "日本"):
            encoded = quote(name, safe="").replace(".", "%2e")
            forgotten = asked("DELETE", f"/users/{encoded}")
            assert forgotten == (200, {"user_id": name, "forgotten": True})
            assert asked("GET", f"/recommend?user_id={encoded}")[1]["user_id"] == name
