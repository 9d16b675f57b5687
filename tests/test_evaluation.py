import io
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from torch import Tensor

from recsys.data.histories import Histories
from recsys.data.vocabulary import Vocabulary
from recsys.errors import InputError
from recsys.evaluation import (
    Targets,
    evaluate,
    paired_bootstrap,
    ranked_tensor,
    results_markdown,
    results_table,
)
from recsys.slices import popularity_bins

K = 100
USERS = Vocabulary([101, 102, 103])
ITEMS = Vocabulary([f"i{number}" for number in range(1, 151)])
TRAIN = pd.DataFrame(
    {
        "user_id": [101] * 12 + [102] * 3 + [103],
        "item_id": [f"i{n}" for n in [*range(1, 13), 1, 2, 3, 1]],
        "timestamp": range(16),
    }
)
HISTORIES = Histories.from_frame(TRAIN, USERS, ITEMS)
TEST = pd.DataFrame(
    {
        "user_id": [103, 101, 101, 999, 103],
        "item_id": ["i20", "i21", "unheard", "i22", "i2"],
    }
)
TARGETS = Targets.from_frame(TEST, USERS, ITEMS)
METRICS = ["recall@5", "ndcg@5", "recall@10", "ndcg@10", "recall@100", "ndcg@100"]


def lists(*starts: list[int]) -> Tensor:
    """Lists [U, K] that begin with the given items and are empty after them."""
    ranked = torch.zeros(len(starts), K, dtype=torch.int64)
    for row, start in enumerate(starts):
        ranked[row, : len(start)] = torch.tensor(start)
    return ranked


RANKINGS = {
    "ease": lists([50], [50], [50]),
    "stage1": lists([50, 22], [51, 21], [51, 52, 2]),
    "popularity": lists([1, 2], [13], [2]),
    "stage2": lists([22], [21], [20, 2]),
}


def evaluated(rankings: dict[str, Tensor] | None = None, **changes) -> dict:
    given = {
        "train": HISTORIES,
        "num_items": len(ITEMS),
        "dataset": "tiny",
        "split": "ua",
        "protocol": "All of it.",
        "seed": 7,
    }
    return evaluate(rankings or RANKINGS, **{"targets": TARGETS, **given, **changes})


def test_targets_are_one_row_per_user_in_index_order():
    assert TARGETS.user_idx.tolist() == [0, 1, 3]
    assert TARGETS.rows.tolist() == [2, 1, 1, 0, 2]
    assert TARGETS.items.tolist() == [20, 21, 0, 22, 2]
    assert TARGETS.num_relevant.tolist() == [1, 2, 2]


def test_unknown_users_keep_a_row_each():
    test = pd.DataFrame({"user_id": [7, 103, 8, 7], "item_id": ["i1", "i9", "i2", "i3"]})
    targets = Targets.from_frame(test, USERS, ITEMS)
    assert targets.user_idx.tolist() == [0, 0, 3]
    assert targets.rows.tolist() == [0, 2, 1, 0]
    assert targets.num_relevant.tolist() == [2, 1, 1]


def test_ranked_tensor_pads_and_cuts():
    ranked = ranked_tensor([["i3", "i1"], [], ["i2", "i5", "i4", "i6"]], ITEMS, 3)
    assert ranked.dtype == torch.int64
    assert ranked.tolist() == [[3, 1, 0], [0, 0, 0], [2, 5, 4]]


def test_ranked_tensor_of_empty_lists():
    assert ranked_tensor([[], []], ITEMS, 2).tolist() == [[0, 0], [0, 0]]


def test_ranked_tensor_refuses_an_unknown_item():
    with pytest.raises(ValueError, match="vocabulary lacks"):
        ranked_tensor([["i1", "nope"]], ITEMS, 3)


def test_keys_are_those_of_the_contract():
    metrics = evaluated()
    head = ["dataset", "split", "protocol", "n_users", "seed", "stage1", "stage2", "baselines"]
    assert list(metrics)[:8] == head
    assert metrics["n_users"] == 3
    assert list(metrics["baselines"]) == ["ease", "popularity"]
    for values in (metrics["stage1"], metrics["stage2"], *metrics["baselines"].values()):
        assert list(values) == METRICS


def test_values_by_hand():
    metrics = evaluated()
    second, third = 1 / math.log2(3), 1 / 2
    pair = 1 + second
    # Users 999, 101, 103. The unknown item of 101 counts as relevant and is never found.
    assert metrics["stage1"]["recall@10"] == pytest.approx((1 + 1 / 2 + 1 / 2) / 3)
    assert metrics["stage1"]["ndcg@5"] == pytest.approx(
        (second + second / pair + third / pair) / 3, abs=1e-8
    )
    assert metrics["stage2"]["recall@5"] == pytest.approx((1 + 1 / 2 + 1) / 3, abs=1e-8)
    assert metrics["stage2"]["ndcg@100"] == pytest.approx((1 + 1 / pair + 1) / 3, abs=1e-8)
    assert metrics["baselines"]["ease"]["recall@100"] == 0


def test_difference_of_the_stages_is_paired():
    metrics = evaluated()
    for metric, interval in metrics["stage2_minus_stage1"].items():
        difference = metrics["stage2"][metric] - metrics["stage1"][metric]
        assert interval["mean"] == pytest.approx(difference, abs=1e-7)
        assert interval["low"] <= interval["mean"] <= interval["high"]
    assert list(metrics["stage2_minus_stage1"]) == METRICS


def test_stage2_may_be_absent():
    metrics = evaluated({"stage1": RANKINGS["stage1"]})
    assert "stage2" not in metrics
    assert "stage2_minus_stage1" not in metrics
    assert metrics["baselines"] == {}
    assert "stage 1" in results_markdown(metrics)


def test_history_slices_share_out_the_users():
    slices = evaluated()["slices"]["history_length"]
    assert [(part["label"], part["n_users"]) for part in slices] == [
        ("0", 1),
        ("1-4", 1),
        ("10-19", 1),
    ]
    assert slices[0]["stage1"]["recall@10"] == 1
    assert slices[1]["stage2"] == {"recall@10": 1, "ndcg@10": 1, "recall@100": 1}
    for system, metric in (("stage1", "recall@100"), ("stage2", "ndcg@10")):
        mean = sum(part["n_users"] * part[system][metric] for part in slices) / 3
        assert mean == pytest.approx(evaluated()[system][metric], abs=1e-7)


def test_popularity_bins_go_by_share_of_events():
    # Shares held by strictly more popular items: 0, .5, .7 and .7, .9, 1.
    counts = np.array([0, 50, 20, 10, 10, 5, 5, 0])
    assert popularity_bins(counts).tolist() == [2, 0, 1, 1, 1, 2, 2, 2]


def test_equally_popular_items_share_a_bin():
    assert popularity_bins(np.array([0, 3, 3, 3])).tolist() == [2, 0, 0, 0]
    assert popularity_bins(np.array([0, 0, 0])).tolist() == [2, 2, 2]


def test_item_slices_count_held_out_events():
    slices = evaluated()["slices"]["item_popularity"]
    # Item 1 has 3 of 16 events, items 2 and 3 have 2 (more popular: 3 / 16), nine have 1 (7 / 16).
    assert [(part["label"], part["n_items"], part["n_held_out"]) for part in slices] == [
        ("head", 12, 1),
        ("tail", 138, 4),
    ]
    assert slices[0]["stage1"] == {"recall@10": 1, "recall@100": 1}
    assert slices[1]["stage1"] == {"recall@10": 0.5, "recall@100": 0.5}
    assert slices[1]["stage2"] == {"recall@10": 0.75, "recall@100": 0.75}


def test_item_slices_cut_the_lists():
    deep = lists([], [], [*range(30, 50), 20])
    slices = evaluated({"stage1": deep})["slices"]["item_popularity"]
    assert slices[1]["stage1"] == {"recall@10": 0, "recall@100": 0.25}


def test_recall_curve_meets_the_table():
    metrics = evaluated()
    curve = metrics["recall_curve"]
    for system in ("stage1", "stage2"):
        assert curve[system] == sorted(curve[system])
        for k in (5, 10, 100):
            assert curve[system][curve["k"].index(k)] == metrics[system][f"recall@{k}"]
    assert curve["k"][-1] == K


def test_coverage_and_novelty_are_given_for_each_system():
    metrics = evaluated()
    assert metrics["coverage@10"]["ease"] == pytest.approx(1 / 150, abs=1e-8)
    assert metrics["coverage@10"]["stage2"] == pytest.approx(4 / 150, abs=1e-8)
    # Nobody has item 50, which counts as if one of the three users had.
    assert metrics["novelty@10"]["ease"] == pytest.approx(math.log2(3), abs=1e-8)
    assert set(metrics["novelty@10"]) == set(RANKINGS)


def test_same_input_gives_the_same_bytes_and_plain_json():
    assert json.dumps(evaluated(), allow_nan=False) == json.dumps(evaluated(), allow_nan=False)
    assert json.loads(json.dumps(evaluated())) == evaluated()


def test_the_seed_moves_the_interval_alone():
    random = np.random.default_rng(0)
    differences = random.normal(0.01, 0.1, size=(50, 1))
    first, second = paired_bootstrap(differences, 1), paired_bootstrap(differences, 2)
    assert (first != second).all()
    assert np.abs(first - second).max() < 0.005


def test_bootstrap_agrees_with_the_normal_interval():
    differences = np.random.default_rng(3).normal(0.02, 0.1, size=(2000, 2))
    low, high = paired_bootstrap(differences, 0)
    half = 1.96 * differences.std(axis=0) / math.sqrt(len(differences))
    assert low == pytest.approx(differences.mean(axis=0) - half, abs=3e-4)
    assert high == pytest.approx(differences.mean(axis=0) + half, abs=3e-4)


def test_bootstrap_of_equal_differences_has_no_width():
    low, high = paired_bootstrap(np.full((9, 1), 0.25), 0, num_resamples=100)
    assert low == pytest.approx(0.25, abs=1e-15)
    assert high == pytest.approx(0.25, abs=1e-15)


@pytest.mark.parametrize(
    ("ranked", "message"),
    [
        (torch.zeros(3, 99, dtype=torch.int64), "shape"),
        (torch.zeros(2, K, dtype=torch.int64), "shape"),
        (lists([151], [], []), "0..150"),
        (lists([-1], [], []), "0..150"),
        (lists([5, 6, 5], [], []), "repeats"),
        (lists([], [13, 1], []), "training"),
    ],
)
def test_lists_that_would_make_the_figures_wrong_are_refused(ranked: Tensor, message: str):
    with pytest.raises(ValueError, match=message):
        evaluated({"stage1": ranked})


def test_nothing_held_out_is_an_input_error():
    with pytest.raises(InputError, match="hold out more"):
        evaluated(targets=Targets.from_frame(TEST[:0], USERS, ITEMS))


def table_metrics() -> dict:
    row = dict.fromkeys(METRICS, 0.1)
    return {
        "dataset": "ml-100k",
        "split": "ua",
        "n_users": 943,
        "stage1": row | {"ndcg@10": 0.32001},
        "stage2": row | {"ndcg@10": 0.33, "recall@5": 0.2},
        "baselines": {"ease": row | {"ndcg@100": 0.5}, "popularity": row, "mine": row},
        "stage2_minus_stage1": {"ndcg@10": {"mean": 0.00999, "low": -0.001, "high": 0.02}},
    }


def test_markdown_table():
    lines = results_markdown(table_metrics()).splitlines()
    assert lines[0] == "| model | R@5 | N@5 | R@10 | N@10 | R@100 | N@100 |"
    assert [line.split("|")[1].strip() for line in lines[2:7]] == [
        "popularity",
        "EASE",
        "mine",
        "stage 1 (two-tower)",
        "stage 2 (cross-encoder)",
    ]
    assert "| **0.2000** | **0.1000** | **0.1000** | **0.3300** | **0.1000** | 0.1000 |" in lines[6]
    assert "**0.5000**" in lines[3]
    assert lines[-1] == (
        "Stage 2 − stage 1 in NDCG@10: +0.0100 (95% interval −0.0010 to +0.0200, "  # noqa: RUF001
        "paired bootstrap over 943 users)."
    )


def test_terminal_table_fits_eighty_columns():
    console = Console(width=80, file=io.StringIO())
    with console.capture() as capture:
        console.print(results_table(table_metrics()))
    text = " ".join(capture.get().split())
    assert "ml-100k, split ua, 943 users" in text
    for text_part in ("stage 2 (cross-encoder)", "0.3300", "0.5000"):
        assert text_part in text
    assert "…" not in text
    assert "paired bootstrap" in text


def test_a_kind_of_events_is_looked_at_by_itself():
    bought = torch.tensor([True, True, False, False, False])  # i20 of 103 and i21 of 101
    metrics = evaluated(kinds={"purchase": bought, "gift": ~bought & False})
    assert list(metrics["targets"]) == ["purchase"]
    found = metrics["targets"]["purchase"]
    assert (found["n_users"], found["n_events"]) == (2, 2)
    # Stage 1 has 101's second and 103's nowhere; stage 2 has both first.
    assert found["stage1"]["ndcg@10"] == pytest.approx(1 / math.log2(3) / 2, abs=1e-8)
    assert found["stage2"]["ndcg@10"] == 1.0
    assert list(found["baselines"]) == list(metrics["baselines"])
    assert {k: v for k, v in metrics.items() if k != "targets"} == evaluated()
    line = results_markdown(metrics).splitlines()[-1]
    assert line.startswith("NDCG@10 of purchase alone (2 users): popularity 0.0000")
    assert line.endswith("stage 2 (cross-encoder) 1.0000.")


def test_a_part_of_the_targets_has_the_users_who_have_any():
    part, rows = TARGETS.part(torch.tensor([True, False, False, True, True]))
    assert part.user_idx.tolist() == [0, 3]
    assert rows.tolist() == [0, 2]
    assert part.rows.tolist() == [1, 0, 1]
    assert part.items.tolist() == [20, 22, 2]
    assert part.num_relevant.tolist() == [1, 2]
