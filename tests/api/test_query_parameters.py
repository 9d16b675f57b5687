"""What a query names and the route does not know is refused, as it is in a body."""

import pytest
from fastapi.testclient import TestClient


@pytest.mark.parametrize(
    ("path", "name", "message"),
    [
        ("/recommend?user_id=101&topk=5", "topk", "did you mean 'top_k'?"),
        ("/recommend?user_id=101&with_title=true", "with_title", "did you mean 'with_titles'?"),
        ("/recommend?userid=101", "userid", "did you mean 'user_id'?"),
        ("/recommend?user_id=101&exclude_seen=false", "exclude_seen", "unknown parameter"),
        ("/recommend?user_id=101&TOP_K=5", "TOP_K", "unknown parameter"),
        ("/features?item=1001", "item", "did you mean 'item_id'?"),
        ("/admin/models?name=x", "name", "known are none"),
        ("/health/ready?x=", "x", "unknown parameter 'x'"),
        ("/health/live?x", "x", "unknown parameter 'x'"),
        ("/metrics?name[]=x", "name[]", "unknown parameter"),
    ],
)
def test_unknown_parameters_are_refused_with_the_nearest_name(
    client: TestClient, path: str, name: str, message: str
) -> None:
    response = client.get(path)
    assert response.status_code == 422
    (problem,) = [one for one in response.json()["detail"] if one["loc"] == ["query", name]]
    assert message in problem["msg"]


@pytest.mark.parametrize(
    "path",
    [
        "/recommend?user_id=101&top_k=5&top_k=6",
        "/recommend?user_id=101&user_id=102",
        "/recommend?user_id=101&user_id=101",
        "/recommend?user_id=101&explain=false&explain=true",
    ],
)
def test_what_is_one_value_is_given_once(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 422
    assert "found it 2 times" in response.text


def test_lists_may_repeat(client: TestClient) -> None:
    path = "/recommend?user_id=101&genre=Drama&genre=Comedy&exclude_genre=War&exclude_genre=x"
    assert client.get(path).status_code == 200


def test_parameters_of_what_changes_anything_are_known_too(client: TestClient) -> None:
    assert client.post("/admin/reload?name=x").status_code == 422
