"""More than a thousand requests made from the OpenAPI description, to a real server."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.test_serve_faults import serving

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
SECONDS = 60
"""A query may wait for the text model for half of the longest deadline, a minute."""
CHANGING = {"/events": 60, "/items": 60, "/users": 60}


@pytest.fixture
def address(text_bundle: Path) -> Iterator[str]:
    with serving(text_bundle, "max_queue=100000") as (_, address):
        yield address


@pytest.fixture
def locked_address(text_bundle: Path, tmp_path: Path) -> Iterator[str]:
    """A server with a key that nobody has."""
    keys = tmp_path / "keys"
    keys.write_text(hashlib.sha256(b"secret").hexdigest())
    with serving(text_bundle, "max_queue=100000", f"api_keys={keys}") as (_, address):
        yield address


def run_cases(address: str, examples: dict[str, int]) -> Counter[tuple[str, int]]:
    """Answers by route and status.

    Args:
        examples: valid and invalid ones of each route, by the beginning of its path.
    """
    url, answers = f"http://{address}", Counter()
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json", timeout=SECONDS)
    for operation in (result.ok() for result in schema.get_all_operations()):
        number = next(n for path, n in examples.items() if operation.path.startswith(path))
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @hypothesis.seed(0)
            @hypothesis.settings(
                max_examples=number,
                deadline=None,
                database=None,
                suppress_health_check=list(hypothesis.HealthCheck),
                phases=[hypothesis.Phase.generate],
            )
            @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
            def answer(case: schemathesis.Case) -> None:
                response = case.call(base_url=url, timeout=SECONDS)
                answers[case.operation.path, response.status_code] += 1
                case.validate_response(response, checks=CHECKS)
                assert "Traceback" not in response.text

            try:
                answer()
            except hypothesis.errors.Unsatisfiable:
                # A route without parameters can be asked in no wrong way.
                assert mode is GenerationMode.NEGATIVE
    return answers


@pytest.mark.slow
def test_every_answer_is_as_described(address: str) -> None:
    examples = {"/recommend": 200, "/admin/reload": 50, "/events": 100, "/items": 100}
    answers = run_cases(address, {**examples, "/users": 60, "/": 20})
    assert answers.total() >= 1300
    assert {path for path, _ in answers} == {
        "/recommend",
        "/admin/reload",
        "/admin/models",
        "/health/live",
        "/health/ready",
        "/metrics",
        "/events",
        "/items/{item_id}",
        "/users/{user_id}",
        "/features",
    }
    assert answers["/recommend", 200] > 80
    assert answers["/recommend", 422] > 80
    assert answers["/admin/reload", 200] > 0
    assert answers["/events", 200] > 25
    assert answers["/items/{item_id}", 200] > 25
    assert answers["/users/{user_id}", 200] > 25


@pytest.mark.slow
def test_without_a_key_nothing_is_changed(locked_address: str) -> None:
    answers = run_cases(locked_address, {"/admin": 100, **CHANGING, "/": 10})
    behind = ("/admin", "/features", *CHANGING)
    statuses = {status for path, status in answers if path.startswith(behind)}
    # What cannot be read is refused before the key is looked at; and keys are guessed at, slowly.
    assert statuses <= {400, 401, 415, 422, 429}
    for path in ("/admin/reload", "/events", "/items/{item_id}", "/users/{user_id}"):
        assert answers[path, 401] + answers[path, 429] > 20
    assert answers["/features", 401] + answers["/features", 429] > 5
