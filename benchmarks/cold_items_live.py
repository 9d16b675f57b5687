"""Items without any training row that are put into a running server: placed as if trained with?

A random tenth of the items is held out of training altogether, as by benchmarks/cold_items.py.
Offline, stage 1 ranks them among themselves with them in the catalogue. Live, the bundle that is
served has never heard of them: they come by PUT /items, one by one, and the lists by
POST /recommend, before and after a restart of the server.

    python benchmarks/cold_items_live.py --draws 1
"""

if not __package__:  # run as a file
    import _root  # type: ignore[import-not-found]  # noqa: F401

import json
import tempfile
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import OmegaConf
from rich.progress import track
from rich.table import Table

from benchmarks.cold_item_draw import ColdItems, draw_cold_items
from benchmarks.cold_items import METRICS, K, evaluate_recommender
from benchmarks.harness import (
    Setting,
    argument_parser,
    cell,
    mean_metrics,
    parse_arguments,
    plain_table,
    present,
    run_draws,
)
from benchmarks.runs import ROOT, counted
from benchmarks.servers import serving
from benchmarks.training import train_recommender
from recsys.artifact import Artifact, save_artifact
from recsys.data.vocabulary import Vocabulary
from recsys.evaluation import ranked_tensor
from recsys.index.builders import FlatIndexBuilder
from recsys.models.two_tower import TwoTowerEnsemble
from recsys.schema import GENRE_SEPARATOR, ExternalId

_USERS_AT_A_TIME = 100
_CALLERS = 4


def measure(setting: Setting, seed: int) -> dict[str, Any]:
    """Figures of one draw: ``{"systems": {name: {metric: value}}}``."""
    draw = draw_cold_items(setting.data, seed)
    recommender = train_recommender(setting.recipe(seed, stage2=False), draw.data, setting.text)
    offline = evaluate_recommender(recommender, draw, rerank=False)["cold"]
    text = OmegaConf.to_container(setting.cfg.text, resolve=True)
    encoder = instantiate(setting.cfg.text.encoder)
    with tempfile.TemporaryDirectory() as folder:
        warm = without_items(recommender.artifact, draw.cold)
        said = {"text": {"fingerprint": encoder.fingerprint}, "config": {"text": text}}
        manifest = {**recommender.manifest, **said}
        bundle = save(replace(warm, manifest=manifest), Path(folder))
        command = ["serve.py", f"bundle={bundle}", "port={port}", "log_level=warning"]
        command.append("deadline_ms=60000")
        with serving(command, "/health/ready") as server:
            put_items(server.url, draw)
            live = evaluate_server(server.url, draw)
        with serving(command, "/health/ready") as server:
            restarted = evaluate_server(server.url, draw)
    systems = {"offline": offline, "live": live, "live, restarted": restarted}
    return {"num_cold": int(draw.cold.sum()), "num_users": len(draw.targets), "systems": systems}


def without_items(artifact: Artifact, left_out: NDArray[np.bool_]) -> Artifact:
    """The artifact of stage 1 as if it had never heard of these items, which have no events."""
    kept = np.flatnonzero(~left_out)  # padding among them
    new_idx = np.cumsum(~left_out) - 1
    log, rows = artifact.histories, torch.from_numpy(kept)
    items = Vocabulary(artifact.items.decode(kept[1:]))
    text, attributes = artifact.text[rows], artifact.attributes[rows]
    two_tower = artifact.two_tower
    assert two_tower.content_map is not None
    members = two_tower.members
    vectors = two_tower.item_vectors().detach()[rows]
    smaller = TwoTowerEnsemble(members, torch.cat([text, attributes], dim=1))
    smaller.scales.copy_(two_tower.scales)
    for encoder, part in zip(
        smaller.encoders, torch.split(vectors, two_tower.vector_dims, dim=1), strict=True
    ):
        encoder.id_embedding = torch.nn.Embedding(len(part), part.shape[1], padding_idx=0)
        encoder.id_embedding.weight.data.copy_(part)
    smaller.content_map = two_tower.content_map
    return replace(
        artifact,
        items=items,
        item_frame=artifact.item_frame.iloc[kept[1:] - 1].reset_index(drop=True),
        histories=replace(log, item_idx=new_idx[log.item_idx]),
        text=text,
        attributes=attributes,
        two_tower=smaller,
        index=FlatIndexBuilder().build(smaller.all_candidates().detach().numpy()),
        stage2=None,
    )


def save(artifact: Artifact, root: Path) -> Path:
    """Write a bundle."""
    return save_artifact(
        root,
        "warm",
        manifest={
            key: artifact.manifest[key]
            for key in (
                *("dataset", "towers", "num_candidates", "max_query_history", "cross_encoder"),
                *("user_attributes", "item_attributes", "text", "config"),
            )
        },
        users=artifact.users,
        items=artifact.items,
        user_frame=artifact.user_frame,
        item_frame=artifact.item_frame,
        histories=artifact.histories,
        text=artifact.text,
        attributes=artifact.attributes,
        two_tower=artifact.two_tower,
        index=artifact.index,
    )


def put_items(url: str, draw: ColdItems) -> None:
    """Put the cold items into a server, some at a time."""
    frame = draw.data.catalog.items.iloc[np.flatnonzero(draw.cold) - 1]

    def put(row: Any) -> None:
        body = {
            "title": row.title,
            "description": row.description,
            "genres": [name for name in row.genres.split(GENRE_SEPARATOR) if name],
            "year": None if pd.isna(row.year) else int(row.year),
            "release_date": row.release_date,
        }
        ask(f"{url}/items/{row.item_id}", "PUT", body)

    with ThreadPoolExecutor(_CALLERS) as threads:
        done = threads.map(put, frame.itertuples())
        list(track(done, "Putting items", total=len(frame)))


def evaluate_server(url: str, draw: ColdItems) -> dict[str, float]:
    """Figures of the lists of cold items that a server answers with."""
    items, users = draw.data.items, draw.data.users
    cold = items.decode(np.flatnonzero(draw.cold))
    known = draw.targets.user_idx > 0
    user_ids = users.decode(draw.targets.user_idx[known])
    lists: list[list[ExternalId]] = []
    if not known.all():  # one list for all who are in no training row
        lists = [asked(url, [-1], cold)[0]] * int((~known).sum())
    for start in range(0, len(user_ids), _USERS_AT_A_TIME):
        lists += asked(url, user_ids[start : start + _USERS_AT_A_TIME], cold)
    ranked = ranked_tensor(lists, items, K)
    return mean_metrics(ranked, draw.targets, len(items), METRICS)


def asked(url: str, user_ids: list[ExternalId], cold: list[ExternalId]) -> list[list[ExternalId]]:
    """The users' lists of cold items."""
    body = {"user_ids": user_ids, "top_k": K, "rules": {"allow": cold}}
    return [one["top_items"] for one in ask(f"{url}/recommend", "POST", body)["results"]]


def ask(url: str, method: str, body: Mapping[str, Any]) -> Any:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}, method=method
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        return json.load(response)


def results_table(content: Mapping[str, Any]) -> Table:
    """One row per way in which the items came."""
    draws, mean = counted(len(content["draws"]), "draw"), content["mean"]
    table = plain_table(
        f"{content['dataset']}: {mean['num_cold']:.0f} cold items, mean±sd of {draws}",
        "stage 1, ranked among the cold items",
    )
    table.add_column("items", no_wrap=True)
    for metric in METRICS:
        table.add_column(metric, justify="right")
    for system in mean["systems"]:
        table.add_row(system, *(cell(content, "systems", system, metric) for metric in METRICS))
    return table


def main() -> None:
    parser = argument_parser("Put items into a running server, and rank them.", stage2=False)
    parser.set_defaults(output=ROOT / "benchmarks/results/cold_items_live.json")
    arguments = parse_arguments(parser)
    content = run_draws(arguments, measure)
    content["protocol"] = " ".join((__doc__ or "").split("\n\n")[1].split())
    present("Items that come while serving", [results_table(content)], content, arguments.output)


if __name__ == "__main__":
    main()
