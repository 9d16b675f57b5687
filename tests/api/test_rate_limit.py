import hashlib
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from recsys.api.app import create_app
from recsys.api.models import ModelStore
from recsys.api.options import ServingOptions
from recsys.api.rate_limit import RateLimit
from recsys.errors import InputError


def test_each_client_has_its_own_rate(untrained_bundle: Path) -> None:
    digest = hashlib.sha256(b"Ada").hexdigest()
    options = ServingOptions(rate_limit="3/minute")
    app = create_app(ModelStore(untrained_bundle, "cpu"), options, [digest])
    with TestClient(app) as client:

        def ask(headers: dict[str, str]) -> int:
            return client.get("/recommend?user_id=101", headers=headers).status_code

        assert [ask({}) for _ in range(4)] == [200, 200, 200, 429]
        assert [ask({"X-API-Key": "Ada"}) for _ in range(4)] == [200, 200, 200, 429]
        # A key that nobody has given out is no way around the limit.
        assert [ask({"X-API-Key": f"guess {n}"}) for n in range(2)] == [429, 429]
        refused = client.get("/recommend?user_id=101")
        assert "at most 3 per 1 minute" in refused.json()["detail"]
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        # Whoever watches the server is not held back.
        assert client.get("/health/ready").status_code == 200


@pytest.mark.parametrize("rate", ["", "often", "10/fortnight"])
def test_a_rate_that_is_none_is_refused(rate: str) -> None:
    with pytest.raises(InputError, match="expected a rate such as 20/second"):
        RateLimit(rate)
