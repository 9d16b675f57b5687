"""``make demo``: train and evaluate on the best data to be had, then ask the server for a list."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from recsys.errors import InputError

BUNDLE = Path("checkpoints/latest")
_START_SECONDS = 120


def main() -> int:
    console = Console()
    data = choose_data(console)
    done = subprocess.run([sys.executable, "train.py", "stage=all", f"data={data}"])
    if done.returncode:
        return done.returncode
    with running_server() as url:
        show_recommendations(console, url)
    report = f"{BUNDLE.resolve().relative_to(Path.cwd())}/report.html"
    console.print(
        "Serve it:           [bold]python serve.py[/bold]   "
        "then open http://127.0.0.1:8000/docs\n"
        "Watch the training: [bold]tensorboard --logdir checkpoints[/bold]\n"
        f"Read the report:    [bold]{escape(report)}[/bold]\n"
        "(activate the environment first: source .venv/bin/activate)",
        highlight=False,
    )
    return 0


def choose_data(console: Console) -> str:
    """``ml100k`` where the data set can be had, else ``sample``, saying why in a banner."""
    from recsys.data import movielens

    try:
        movielens.load("data/ml-100k", os.environ.get("MOVIELENS_ARCHIVE"))
    except InputError as error:
        console.print(
            Panel(
                "[bold]MovieLens-100K could not be had; going on with the bundled sample.[/bold]\n"
                "Its films are invented: the figures below say that the system works, not how well "
                f"it does on real data.\n\nReason: {escape(str(error))}",
                border_style="yellow",
            )
        )
        return "sample"
    return "ml100k"


@contextlib.contextmanager
def running_server() -> Iterator[str]:
    """Start ``serve.py`` on a free port; yields its base URL once it is ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "serve.py", f"port={port}", "log_level=warning"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(server, url)
        yield url
    finally:
        server.terminate()
        server.wait(timeout=30)


def _wait_until_ready(server: "subprocess.Popen[bytes]", url: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"serve.py ended with status {server.returncode}")
        with contextlib.suppress(urllib.error.URLError):
            get_json(f"{url}/health/ready")
            return
        time.sleep(0.2)
    raise RuntimeError(f"serve.py was not ready within {_START_SECONDS} seconds")


def get_json(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=30) as response:
        content: dict[str, Any] = json.load(response)
    return content


def show_recommendations(console: Console, url: str) -> None:
    """Ask the running server for one user's list, and print it with titles."""
    import pandas as pd

    user_id = pd.read_parquet(BUNDLE / "users.parquet")["user_id"].iloc[0]
    path = f"/recommend?user_id={user_id}&top_k=5"
    answer = get_json(f"{url}{path}&with_titles=true")
    console.print(f"\n[bold]GET {path}[/bold]   source: {answer['source']}", highlight=False)
    table = Table()
    table.add_column("rank", justify="right")
    table.add_column("item_id")
    table.add_column("title")
    for rank, (item, title) in enumerate(
        zip(answer["top_items"], answer["titles"], strict=True), start=1
    ):
        table.add_row(str(rank), *map(escape, (str(item), title)))
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
