"""What the dial of diversity costs and gives, by both methods, on validation rows.

The lists are those that are served, re-arranged by ``diversity`` from 0 to 1. 10 random training
rows per user, at most half of them, are held out of training and are relevant; no test row is
read. NDCG@10 is of these rows; list diversity is the mean of 1 - cosine over the pairs of a list,
by the items' text vectors; coverage is the share of the catalogue that is in any list.

    python benchmarks/diversity.py --draws 1
"""

if not __package__:  # run as a file
    import _root  # type: ignore[import-not-found]  # noqa: F401

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from torch import Tensor

from benchmarks.ablation_variants import carve_validation
from benchmarks.diversity_charts import NAMES, drawing
from benchmarks.harness import (
    Setting,
    argument_parser,
    mean_metrics,
    parse_arguments,
    plain_table,
    present,
    run_draws,
)
from benchmarks.runs import ROOT, counted
from benchmarks.training import train_recommender
from recsys.data.prepare import TrainingData
from recsys.evaluation import Targets, ranked_tensor
from recsys.metrics import catalog_coverage, intra_list_diversity
from recsys.recommender import Recommender
from recsys.request import Request
from recsys.rules import ItemTable, Rules, arrange
from recsys.rules.arranging import TIMES_TO_CHOOSE_FROM
from recsys.rules.named_items import NamedItems
from recsys.rules.rules import Method
from recsys.schema import RankedList

log = logging.getLogger(__name__)

TOP_K = 10
DIALS = tuple(round(step / 10, 1) for step in range(11))
NDCG, DIVERSITY, COVERAGE = f"ndcg@{TOP_K}", f"diversity@{TOP_K}", f"coverage@{TOP_K}"


def measure(setting: Setting, seed: int, *, stage2: bool) -> dict[str, Any]:
    """One draw of validation rows: ``{"mmr": {"0.0": {metric: value}, "0.1": …}, "dpp": …}``."""
    data, targets = carve_validation(setting.data, seed)
    log.info("training without the validation rows of %d users", len(targets))
    recommender = train_recommender(setting.recipe(seed, stage2=stage2), data, setting.text)
    return figures(recommender, data, setting.text, targets, rerank=stage2)


def figures(
    recommender: Recommender, data: TrainingData, text: Tensor, targets: Targets, *, rerank: bool
) -> dict[str, Any]:
    """As of ``measure``, of the lists of a recommender that has not seen the targets.

    text: float32 [N + 1, T], L2-normalised.
    """
    users = data.users.decode(targets.user_idx)
    requests = [Request(top_k=TIMES_TO_CHOOSE_FROM * TOP_K, user_id=user) for user in users]
    answers = recommender.recommend(requests, rerank=rerank)
    table, num_items = ItemTable.from_frame(data.catalog.items), len(data.items)
    found: dict[str, Any] = {}
    for method in get_args(Method):
        found[method] = {}
        for dial in DIALS:
            rules = Rules(diversity=dial, diversify=method)
            lists = rearranged(answers, rules, data, table, text.numpy())
            ranked = ranked_tensor(lists, data.items, TOP_K)
            found[method][str(dial)] = {
                **mean_metrics(ranked, targets, num_items, [NDCG]),
                DIVERSITY: float(intra_list_diversity(ranked, TOP_K, text).mean()),
                COVERAGE: catalog_coverage(ranked, TOP_K, num_items),
            }
    return found


def rearranged(
    answers: Sequence[RankedList],
    rules: Rules,
    data: TrainingData,
    table: ItemTable,
    vectors: NDArray[np.float32],
) -> list[list[Any]]:
    """The item ids of each answer's first ``TOP_K`` by the rules."""
    named, lists = NamedItems.of(rules, table, data.items.encode), []
    for answer in answers:
        item_idx = data.items.encode(answer.item_ids)
        best = arrange(item_idx, answer.scores, TOP_K, rules, table, vectors[item_idx], named)
        lists.append(data.items.decode(best.item_idx))
    return lists


def results_table(content: Mapping[str, Any]) -> Table:
    """One row per value of the dial, three columns per method."""
    mean = content["mean"]
    draws = counted(len(content["draws"]), "draw")
    table = plain_table(
        f"{content['dataset']}: what diversity costs, mean of {draws}",
        "MMR: maximal marginal relevance. DPP: determinantal point process.",
    )
    table.add_column("diversity", no_wrap=True)
    for method in mean:
        for metric in (f"NDCG@{TOP_K}", "list diversity", "coverage"):
            table.add_column(f"{NAMES[method]}: {metric}", justify="right")
    for dial in DIALS:
        cells = []
        for method in mean:
            values = mean[method][str(dial)]
            cells += [f"{values[NDCG]:.4f}", f"{values[DIVERSITY]:.3f}"]
            cells.append(f"{100 * values[COVERAGE]:.1f}%")
        table.add_row(str(dial), *cells)
    return table


def main() -> None:
    parser = argument_parser("Measure what lists lose and gain by diversity.")
    parser.set_defaults(stage2=True, output=ROOT / "benchmarks/results/diversity.json")
    arguments = parse_arguments(parser)
    content = run_draws(arguments, partial(measure, stage2=arguments.stage2))
    content["protocol"] = " ".join((__doc__ or "").split("\n\n")[1].split())
    present("Diversity", [results_table(content)], content, arguments.output)
    arguments.output.with_suffix(".svg").write_text(drawing(content))


if __name__ == "__main__":
    main()
