from typing import Any

import pytest

from recsys.refresh.verdict import Limits, judge


def difference(mean: float, width: float = 0.01) -> dict[str, float]:
    return {"mean": mean, "low": mean - width, "high": mean + width}


def metrics(
    ndcg: float = 0.001,
    recall: float = 0.001,
    n_users: int = 300,
    slice_now: float = 0.2,
    coverage: float = 0.3,
    width: float = 0.01,
) -> dict[str, Any]:
    return {
        "n_users": n_users,
        "stage1": {},
        "stage2": {},
        "served_stage": "stage2",
        "baselines": {"champion": {"ndcg@10": 0.2, "recall@100": 0.6}},
        "minus_champion": {
            "ndcg@10": difference(ndcg, width),
            "recall@100": difference(recall, width),
        },
        "slices": {
            "history_length": [
                {
                    "label": "5-9",
                    "n_users": 80,
                    "champion": {"ndcg@10": 0.2},
                    "stage2": {"ndcg@10": slice_now},
                },
                {
                    "label": "200+",
                    "n_users": 3,
                    "champion": {"ndcg@10": 0.2},
                    "stage2": {"ndcg@10": 0.0},
                },
            ]
        },
        "coverage@10": {"champion": 0.4, "stage2": coverage, "stage1": 0.0},
    }


@pytest.mark.parametrize("ndcg", [0.02, 0.0, -0.003])
def test_a_challenger_that_is_not_worse_is_promoted(ndcg: float) -> None:
    verdict = judge(metrics(ndcg), Limits())
    assert verdict.promoted
    assert verdict.reasons == [
        f"ndcg@10 {ndcg:+.4f} ({ndcg - 0.01:+.4f} to {ndcg + 0.01:+.4f}) on 300 users"
    ]


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (metrics(ndcg=-0.004, width=0.003), "ndcg@10 is worse, with its whole interval"),
        (metrics(ndcg=-0.007), "ndcg@10 is worse by more than 3%"),
        (metrics(recall=-0.02), "recall@100 is worse, with its whole interval"),
        (metrics(n_users=20), "fewer than 50 users tell too little"),
        (metrics(slice_now=0.14), "ndcg@10 of users with 5-9 events fell from 0.2000 to 0.1400"),
        (metrics(coverage=0.19), "coverage@10 fell from 40.0% to 19.0%"),
    ],
)
def test_what_speaks_against_it_is_said(found: dict[str, Any], reason: str) -> None:
    verdict = judge(found, Limits())
    assert not verdict.promoted
    assert reason in verdict.reasons


def test_limits_are_the_users_to_choose() -> None:
    assert judge(metrics(ndcg=-0.007), Limits(margin=0.05)).promoted
    assert judge(metrics(n_users=20), Limits(min_users=10)).promoted
