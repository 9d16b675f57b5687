import json
import logging
import sys

import pytest

from recsys.api.logs import JsonFormatter
from recsys.api.middleware import REQUEST_ID


def entries(caplog: pytest.LogCaptureFixture) -> list[dict]:
    formatter = JsonFormatter()
    return [json.loads(formatter.format(one)) for one in caplog.records if "recsys" in one.name]


def test_a_request_leaves_one_line_with_its_id(client, caplog) -> None:
    with caplog.at_level(logging.INFO, "recsys"):
        response = client.get("/recommend?user_id=101&top_k=3", headers={REQUEST_ID: "abc-1"})
    (entry,) = entries(caplog)
    assert response.headers[REQUEST_ID] == "abc-1"
    assert (entry["message"], entry["level"], entry["status"]) == ("request", "info", 200)
    assert (entry["method"], entry["path"]) == ("GET", "/recommend")
    assert entry["query"] == "user_id=101&top_k=3"
    assert entry["milliseconds"] > 0


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, 'a"\\n{}'])
def test_a_missing_or_odd_id_is_replaced(client, given: str) -> None:
    found = {client.get("/health/live", headers={REQUEST_ID: given}).headers[REQUEST_ID]}
    found.add(client.get("/health/live").headers[REQUEST_ID])
    assert len(found) == 2
    assert all(len(one) == 32 for one in found)


def test_an_error_is_logged_with_its_traceback() -> None:
    try:
        raise RuntimeError('out "of"\norder')
    except RuntimeError:
        failure = sys.exc_info()
    record = logging.LogRecord("x", logging.ERROR, "", 1, "failed %s", ("so",), failure)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line)["message"] == "failed so"
    assert 'RuntimeError: out "of"\norder' in json.loads(line)["traceback"]
