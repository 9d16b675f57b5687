"""What a run leaves behind besides the bundle: metrics.json, report.html, TensorBoard summaries."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils.tensorboard import SummaryWriter

from recsys.bundle import write_metrics
from recsys.data.prepare import TrainingData
from recsys.evaluation import results_markdown
from recsys.recommender import Recommender
from recsys.report import write_report
from recsys.request import Request
from recsys.results import data_line
from recsys.schema import TITLE, ExternalId

_NUM_EXAMPLES = 4
_EXAMPLE_LENGTH = 8


def write_results(
    bundle: Path,
    metrics: Mapping[str, Any],
    recommender: Recommender,
    data: TrainingData,
    curves: dict[str, pd.DataFrame],
    run_info: dict[str, str],
) -> Path:
    """Write metrics.json and report.html into the bundle; returns the report's path."""
    write_metrics(bundle, metrics)
    train, test = len(data.train), len(data.split.test)
    sizes = (
        f"{data.name}, split {data.split.name}: {len(data.users):,} users, {len(data.items):,} "
        f"items, {train:,} training and {test:,} held-out rows"
    )
    report = bundle / "report.html"
    write_report(
        report,
        dict(metrics),
        training_curves=curves,
        run_info={"Data": sizes} | run_info,
        examples=_examples(recommender, data, int(metrics["seed"])),
    )
    return report


def write_tensorboard(
    folder: Path,
    metrics: Mapping[str, Any],
    recommender: Recommender,
    hyper_parameters: Mapping[str, Any],
) -> None:
    """The final table as text, under the data set's name; hparams with metrics; and the item
    embeddings with titles.

    Args:
        hyper_parameters: may be nested; a value deep down is named ``a.b.c``.
    """
    with SummaryWriter(str(folder)) as writer:
        title = data_line(dict(metrics))
        writer.add_text("results", f"### {title}\n\n{results_markdown(dict(metrics))}")
        final = {
            f"test/{stage}/{name}": value
            for stage in ("stage1", "stage2")
            for name, value in metrics.get(stage, {}).items()
        }
        writer.add_hparams(_flattened(hyper_parameters), final, run_name=".")
        frame = recommender.item_frame
        labels = frame[["item_id", TITLE, "genres", "year"]].astype("str")
        # A tab or a line break would shift the table that the projector reads.
        cells = labels.replace(r"\s+", " ", regex=True).to_numpy().tolist()
        with torch.inference_mode():
            embeddings = recommender.retriever.embeddings[1:].float().cpu()
        writer.add_embedding(embeddings, metadata=cells, metadata_header=list(labels), tag="items")


def _flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flattened(value, f"{prefix}{key}.")
        elif key != "_partial_":
            flat[f"{prefix}{key}"] = value if isinstance(value, bool | int | float) else str(value)
    return flat


def _examples(recommender: Recommender, data: TrainingData, seed: int) -> list[dict[str, Any]]:
    """A few random users: what they had, what each stage recommends, what was held out."""
    test = data.split.test
    known = [u for u in pd.unique(test["user_id"]).tolist() if u in data.users]
    chosen = np.random.default_rng(seed).permutation(len(known))[:_NUM_EXAMPLES]
    titles = recommender.item_frame.set_index("item_id")[TITLE]

    def titled(item_ids: list[ExternalId]) -> list[str]:
        return [str(titles[i]) for i in item_ids if i in titles.index]

    examples = []
    for row in sorted(chosen.tolist()):
        user = known[row]
        request = [Request(top_k=_EXAMPLE_LENGTH, user_id=user)]
        number = int(data.users.encode([user])[0])
        history = data.train.item_idx[data.train.offsets[number] : data.train.offsets[number + 1]]
        held_out = test.loc[test["user_id"] == user, "item_id"].tolist()
        example = {
            "user": str(user),
            "history": titled(data.items.decode(history[-_EXAMPLE_LENGTH:])),
            "stage1": titled(recommender.recommend(request, rerank=False)[0].item_ids),
            "held_out": titled(held_out),
        }
        if recommender.reranker is not None:
            example["stage2"] = titled(recommender.recommend(request)[0].item_ids)
        examples.append(example)
    return examples
