"""Whether a GPU trains and serves what a CPU does, and how fast; a few minutes on one card.

    python benchmarks/gpu_check.py
    python benchmarks/gpu_check.py data=ml100k experiment=quick

Trains both stages with trainer.accelerator=gpu, on the bundled sample where nothing is said, serves
the bundle with device=cuda, and compares its lists to those of a CPU. Ends with an error where they
differ by more than the tolerances that the table tells. Where there is no card it says so and ends;
``--device cpu`` has PyTorch on the CPU in the GPU's place.
"""

if not __package__:  # run as a file
    import _root  # type: ignore[import-not-found]  # noqa: F401

import argparse
import json
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from rich.table import Table

from benchmarks.harness import load_setting, plain_table, present
from benchmarks.runs import machine
from benchmarks.servers import serving
from benchmarks.training import candidate_lists, write_stage1, write_stage2
from recsys.artifact import load_artifact
from recsys.errors import InputError
from recsys.recommender import Recommender
from recsys.request import Request
from recsys.schema import ExternalId, RankedList

SMALL = ("data=sample", "experiment=quick")
LENGTH, MOST_USERS, NUM_SERVED = 10, 500, 20
"""Of the compared lists; users whose lists are compared; and those who ask the server."""
FEWEST_SAME, MOST_DIFFERENT = 0.98, 1e-3
"""Tolerances: users with the same items in the same order, since next to equal scores may change
places, and the difference of one item's two scores."""
BATCH_SIZES, REPEATS, FIRST_STEPS = (1, 16, 64), 20, 3
"""Of re-ranking; times that each is timed; and steps of a fit that do not count."""
STAGES = {"RetrievalModule": "stage 1", "RerankingModule": "stage 2"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file, too")
    parser.add_argument(
        "overrides", nargs="*", help=f"of configs/train.yaml (default {' '.join(SMALL)})"
    )
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("no GPU that PyTorch can use: nothing checked")
        return
    try:
        content = measure(arguments.device, arguments.overrides or SMALL)
    except InputError as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
    present("GPU check", [check_table(content), speed_table(content)], content, arguments.output)
    if not is_within(content):
        sys.exit("error: lists differ by more than the tolerances")


def measure(device: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Train, compare and time.

    Raises:
        InputError: on a mistyped override, data that can't be had, or a server that does not start.
    """
    started = time.perf_counter()
    accelerator = "gpu" if device == "cuda" else "cpu"
    setting = load_setting([*overrides, f"trainer.accelerator={accelerator}"])
    clock = StepClock(device)
    recipe = setting.recipe(0, stage2=True)
    recipe = replace(recipe, trainer_factory=clock.timed(recipe.trainer_factory))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        stage1 = write_stage1(recipe, setting.data, setting.text, root)
        lists = candidate_lists(recipe, setting.data, stage1, root)
        bundle = write_stage2(recipe, setting.data, stage1, lists, root)
        trained = time.perf_counter() - started
        on_cpu, on_device = Recommender.load(bundle, stage2=True), _on(device, bundle)
        users = on_cpu.users.ids[:MOST_USERS].tolist()
        compared = {
            stage: _compared(on_cpu, on_device, users, rerank=rerank)
            for stage, rerank in (("stage 1", False), ("stage 2", True))
        }
        served = _served_alike(bundle, device, on_device, users[:NUM_SERVED])
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU, PyTorch"
    return {
        "protocol": f"{setting.data.name}: {len(on_cpu.users):,} users, {len(on_cpu.items):,} "
        f"items, {on_cpu.num_candidates} candidates; {name}.",
        "machine": machine(("torch", "pytorch-lightning", "onnxruntime")),
        "overrides": list(overrides),
        "device": name,
        "num_users": len(users),
        "lists": compared,
        "served_alike": served,
        "step_ms": clock.medians(),
        "rerank_ms": {
            place: {str(size): _rerank_ms(one, users, size) for size in BATCH_SIZES}
            for place, one in (("CPU", on_cpu), (name, on_device))
        },
        "trained_seconds": trained,
        "seconds": time.perf_counter() - started,
    }


@dataclass(eq=False)
class StepClock(Callback):
    """Milliseconds of training steps, by class of module and fit."""

    device: str
    started: float = 0.0
    fits: list[tuple[str, list[float]]] = field(default_factory=list)

    def timed(self, factory: Callable[..., pl.Trainer]) -> Callable[..., pl.Trainer]:
        """Trainers that this clock times."""

        def make(*, callbacks: Sequence[Callback], **options: Any) -> pl.Trainer:
            return factory(callbacks=[*callbacks, self], **options)

        return make

    def on_train_start(self, _: pl.Trainer, module: pl.LightningModule) -> None:
        self.fits.append((STAGES[type(module).__name__], []))

    def on_train_batch_start(self, *_: Any) -> None:
        self.started = self._now()

    def on_train_batch_end(self, *_: Any) -> None:
        self.fits[-1][1].append(1e3 * (self._now() - self.started))

    def _now(self) -> float:
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def medians(self) -> dict[str, float]:
        """By stage."""
        found = {}
        for stage in STAGES.values():
            steps = [one for name, taken in self.fits if name == stage for one in taken]
            later = [
                one for name, taken in self.fits if name == stage for one in taken[FIRST_STEPS:]
            ]
            found[stage] = statistics.median(later or steps)
        return found


def _on(device: str, bundle: Path) -> Recommender:
    """On the device, in PyTorch."""
    artifact = load_artifact(bundle)
    assert artifact.stage2 is not None
    return Recommender(
        replace(artifact, stage2=replace(artifact.stage2, graph=None)), device, stage2=True
    )


def _compared(
    on_cpu: Recommender, on_device: Recommender, users: Sequence[ExternalId], *, rerank: bool
) -> dict[str, float]:
    requests = [Request(LENGTH, user_id=user) for user in users]
    both = (one.recommend(requests, rerank=rerank) for one in (on_cpu, on_device))
    pairs = list(zip(*both, strict=True))
    return {
        "same": sum(one.item_ids == other.item_ids for one, other in pairs) / len(pairs),
        "difference": max(largest_difference(one, other) for one, other in pairs),
    }


def largest_difference(one: RankedList, other: RankedList) -> float:
    """Of the two scores of an item that is in both lists; 0 where none is."""
    scores = dict(zip(other.item_ids, other.scores.tolist(), strict=True))
    own = zip(one.item_ids, one.scores.tolist(), strict=True)
    return max((abs(value - scores[item]) for item, value in own if item in scores), default=0.0)


def _served_alike(
    bundle: Path, device: str, recommender: Recommender, users: Sequence[ExternalId]
) -> float:
    """The share of users to whom ``serve.py`` answers with the recommender's list."""
    options = ["log_level=warning", "store.enabled=false", "port={port}"]
    command = ["serve.py", f"bundle={bundle}", f"device={device}", *options]
    lists = recommender.recommend([Request(LENGTH, user_id=user) for user in users])
    same: list[bool] = []
    with serving(command, "/health/ready") as server:
        for user, expected in zip(users, lists, strict=True):
            url = f"{server.url}/recommend?user_id={user}&top_k={LENGTH}"
            with urllib.request.urlopen(url, timeout=30) as response:
                answer = json.load(response)
            same.append(answer["top_items"] == expected.item_ids)
    return sum(same) / len(same)


def _rerank_ms(recommender: Recommender, users: Sequence[ExternalId], size: int) -> float:
    """Median milliseconds of re-ranking a batch, other users each time where there are enough."""
    taken = []
    for turn in range(REPEATS + 1):
        chosen = [users[(turn * size + place) % len(users)] for place in range(size)]
        retrieved = recommender.retrieve([Request(LENGTH, user_id=user) for user in chosen])
        started = time.perf_counter()
        recommender.rerank(retrieved)
        taken.append(1e3 * (time.perf_counter() - started))
    return statistics.median(taken[1:])


def is_within(content: dict[str, Any]) -> bool:
    """Whether all lists are within the tolerances."""
    lists = content["lists"].values()
    shares = [content["served_alike"], *(one["same"] for one in lists)]
    return min(shares) >= FEWEST_SAME and all(one["difference"] <= MOST_DIFFERENT for one in lists)


def check_table(content: dict[str, Any]) -> Table:
    """What was compared, and training."""
    table = plain_table(
        f"{content['device']} beside the CPU",
        f"lists of {LENGTH} of {content['num_users']:,} users; trained in "
        f"{content['trained_seconds']:.0f} s, all in {content['seconds']:.0f} s",
    )
    table.add_column("what")
    for header in ("found", "tolerance"):
        table.add_column(header, justify="right")
    for stage, found in content["lists"].items():
        share = f"{found['same']:.1%}", f"at least {FEWEST_SAME:.0%}"
        table.add_row(f"{stage}: same items, same order", *share)
        most = f"{found['difference']:.1e}", f"at most {MOST_DIFFERENT:.0e}"
        table.add_row(f"{stage}: largest difference of scores", *most)
    share = f"{content['served_alike']:.1%}", f"at least {FEWEST_SAME:.0%}"
    table.add_row("lists of serve.py: as of the recommender", *share)
    for stage, value in content["step_ms"].items():
        table.add_row(f"{stage}: training step, median ms", f"{value:.2f}", "")
    return table


def speed_table(content: dict[str, Any]) -> Table:
    """Re-ranking by batch size."""
    table = plain_table("re-ranking", f"milliseconds of a batch, medians of {REPEATS}")
    table.add_column("device")
    for size in BATCH_SIZES:
        table.add_column(f"{size} lists", justify="right")
    for place, values in content["rerank_ms"].items():
        table.add_row(place, *(f"{values[str(size)]:.2f}" for size in BATCH_SIZES))
    return table


if __name__ == "__main__":
    main()
