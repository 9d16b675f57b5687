"""The benchmark of data sets: sets are read, test rows reach nobody, leads are over the best."""

import json
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import datasets
from benchmarks.datasets_registry import GIVEN, SETS, split_overrides
from benchmarks.datasets_tables import BEST, STRONGEST, contents, markdown, settings_text, summarize
from benchmarks.datasets_unit import Wanted, configured
from benchmarks.peers.merged import with_peers
from benchmarks.quality_tables import Unit
from benchmarks.runs import save_result
from recsys.errors import InputError
from recsys.results import STAGES
from recsys.training.catalogue_size import exceeds

MACHINE = {"processor": "x", "cores": 2, "commit": "c", "versions": {"torch": "1"}}
NUM_USERS, NUM_ITEMS = 40, 30


def taste_rows() -> pd.DataFrame:
    """Even users have even items, odd users odd ones, twelve of fifteen each."""
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(NUM_USERS), 12)
    items = np.concatenate([2 * rng.permutation(15)[:12] + user % 2 for user in range(NUM_USERS)])
    return pd.DataFrame({"user_id": users, "item_id": items})


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three sets in the public ones' formats; the others are not there."""
    root = tmp_path_factory.mktemp("sets")
    rows = taste_rows()
    folders = {name: root / name for name in ("steam", "gowalla", "retail")}
    for folder in folders.values():
        folder.mkdir()
    games = rows.assign(item_id="Game " + rows["item_id"].astype(str), rating=1.5)
    games.to_csv(folders["steam"] / "events.csv.gz", index=False)
    titles = pd.DataFrame({"item_id": games["item_id"].unique()})
    titles.assign(title=titles["item_id"]).to_csv(folders["steam"] / "items.csv.gz", index=False)
    last = rows.groupby("user_id").cumcount() >= 9
    rows[~last].to_csv(folders["gowalla"] / "train.csv.gz", index=False)
    rows[last].to_csv(folders["gowalla"] / "test.csv.gz", index=False)
    invoices = pd.DataFrame(
        {
            "CustomerID": rows["user_id"] + 12_000,
            "StockCode": "P" + rows["item_id"].astype(str),
            "Description": "THING_" + rows["item_id"].astype(str),
            "InvoiceDate": pd.Timestamp("2010-12-01 08:26:00")
            + pd.to_timedelta(np.random.default_rng(1).permutation(len(rows)), unit="h"),
        }
    )
    invoices.to_csv(folders["retail"] / "online_retail.csv.gz", index=False)
    return root


def unit(seed: int = 0) -> Unit:
    """EASE is best by validation, popularity by test; stage 1 is .02 above EASE, stage 2 .03."""
    ease = np.random.default_rng(seed).random((9, 4)) / 2
    names = ("popularity", "ease")
    content = {
        "protocol": "a test",
        "n_users": 9,
        "rows": {"users": 9, "items": 7, "train": 50},
        "configuration": [],
        "epochs": 3,
        "metrics": list(SETS["steam"].metrics),
        "baselines": {
            name: {"validation": value, "settings": {"half_life": None}}
            for name, value in zip(names, (0.1, 0.2), strict=True)
        },
        **{key: {"stage1": 2.0} for key in ("seconds", "cpu_seconds", "peak_gb")},
    }
    per_user = {"ease": ease, "popularity": ease + 0.1}
    return Unit(content, per_user | {"stage1": ease + 0.02, "stage2": ease + 0.03})


def test_the_best_baseline_is_the_best_on_validation_rows() -> None:
    summary = summarize([unit(0), unit(1)])
    assert summary["best_baseline"] == "ease"
    lead = summary["differences"][f"stage2 - {BEST}"]["ndcg@10"]
    assert lead == pytest.approx({"mean": 0.03, "low": 0.03, "high": 0.03})
    assert summary["strongest_other"] == "popularity"
    harder = summary["differences"]["stage2 - strongest other"]["ndcg@10"]
    assert harder["mean"] == pytest.approx(-0.07)
    between = summary["differences"]["stage2 - stage1"]["recall@100"]
    assert between["mean"] == pytest.approx(0.01)


def test_tables_and_page_show_every_set() -> None:
    content = contents({("steam", "random"): [unit()], ("office", "leave_last"): [unit()]}, MACHINE)
    text, html = markdown(content), datasets.page(content)
    for name in ("steam", "office"):
        assert f"## {name}" in text
        assert f"{name}, NDCG@10" in html
    assert "+0.0300*" in html
    assert "minus popularity (best on test rows) | -0.0800 (-0.0800 to -0.0800)" in text
    assert "http" not in html.replace("http://www.w3.org", "")


def test_peers_of_the_same_rows_stand_beside_the_baselines(tmp_path: Path) -> None:
    own, facts = unit(), {"epochs": 7, "seconds": 61.2, "peak_gb": 1.24}
    own = Unit({**own.content, "data": "these rows"}, own.per_user)
    peer = {"RecBole MultiVAE": own.per_user["ease"] + 0.2}
    content = {"metrics": own.content["metrics"], "peers": {"RecBole MultiVAE": facts}}
    for folder, rows in (("same", "these rows"), ("other", "others")):
        (tmp_path / folder).mkdir()
        save_result(tmp_path / folder, {**content, "data": rows}, peer)

    for folder in ("other", "nowhere"):
        assert with_peers(own, tmp_path / folder) is own
    summary = summarize([with_peers(own, tmp_path / "same")])

    assert list(summary["systems"]) == ["popularity", "ease", "RecBole MultiVAE", *STAGES]
    assert summary["best_baseline"] == "ease"
    lead = summary["differences"][f"stage2 - {STRONGEST}"]["ndcg@10"]
    assert lead["mean"] == pytest.approx(-0.17)
    text = markdown({"machine": MACHINE, "sets": {"steam": entry_of(summary)}})
    assert "7 epochs, 61 s, 1.2 GB" in text
    assert "minus RecBole MultiVAE (best on test rows) | -0.1700" in text


def entry_of(summary: dict[str, object]) -> dict[str, object]:
    return {"note": "x", "texts": "none", "times": "none", "protocols": {"random": summary}}


def test_tables_and_page_do_without_stage_2() -> None:
    both = unit()
    alone = Unit(
        both.content, {name: own for name, own in both.per_user.items() if name != "stage2"}
    )
    content = contents({("steam", "random"): [alone]}, MACHINE)
    (row,) = [line for line in markdown(content).splitlines() if "steam, random | EASE" in line][:1]
    assert "+0.0200 (+0.0200 to +0.0200)" in row
    assert "stage 2" not in datasets.page(content)


def test_settings_are_written_in_words() -> None:
    settings = {"regularization": 400.0, "half_life": None, "by_user": False}
    assert settings_text(settings) == "regularization 400, half_life none, by_user no"


def test_the_registry_names_files_and_splits() -> None:
    for name, public in SETS.items():
        assert public.missing(Path("nowhere") / name) or name == "ml-100k"
        assert public.protocols
        assert (GIVEN in public.protocols) == (public.test is not None)
    assert "data.split=random" in split_overrides(GIVEN, 0)


def namespace(sets: Path, only: list[str], **others: object) -> Namespace:
    values = {"protocols": datasets.PROTOCOLS, "seeds": 2, "small": True, "extra": [], "sets": sets}
    values |= {"stage2": True, "lambdamart": False}
    return Namespace(only=only, **(values | others))


def test_sets_that_are_not_there_are_passed_over(
    sets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    units = datasets.chosen(namespace(sets, ["steam", "video"]))
    assert [(one.name, one.protocol, one.seed) for one in units] == [
        ("steam", "random", 0),
        ("steam", "random", 1),
    ]
    assert "video is passed over: events.csv.gz" in capsys.readouterr().out
    with pytest.raises(InputError, match="--sets"):
        datasets.chosen(namespace(sets, ["video"]))


def test_a_given_split_is_taken_as_it_is(sets: Path) -> None:
    wanted = Wanted("gowalla", GIVEN, 0, sets / "gowalla", small=True)
    setting, _ = configured(wanted, SETS["gowalla"])
    data = setting.data
    assert len(data.split.train) == len(data.train) == NUM_USERS * 9
    assert len(data.split.test) == NUM_USERS * 3
    assert len(setting.text) == NUM_ITEMS + 1


def test_one_file_of_invoices_serves_as_both_tables(sets: Path) -> None:
    wanted = Wanted("retail", "global_time", 0, sets / "retail", small=True)
    setting, _ = configured(wanted, SETS["retail"])
    assert len(setting.data.items) == NUM_ITEMS
    assert setting.data.catalog.items["title"].str.startswith("THING_").all()
    assert np.ptp(setting.data.train.timestamps) > 0


def test_catalogues_too_large_for_the_closed_form_are_trained_otherwise(sets: Path) -> None:
    wanted = Wanted("steam", "random", 0, sets / "steam")
    setting, told = configured(wanted, SETS["steam"])
    assert told == []
    retrieval = setting.cfg.retrieval
    limit = retrieval.towers.linear.objective.max_items
    assert [exceeds(retrieval, number) for number in (limit, limit + 1)] == [False, True]
    setting, _ = configured(replace(wanted, extra=("retrieval=large_catalog",)), SETS["steam"])
    assert not exceeds(setting.cfg.retrieval, limit + 1)


@pytest.mark.slow
def test_the_whole_command(
    sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "results" / "datasets.json"
    arguments = ["--sets", sets, "--only", "gowalla,ml1m", "--small", "--lambdamart"]
    arguments += ["--runs", tmp_path / "runs", "--output", output]
    monkeypatch.setattr(sys, "argv", ["datasets.py", *map(str, arguments)])
    datasets.main()
    assert "ml1m is passed over" in capsys.readouterr().out
    content = json.loads(output.read_text())
    assert list(content["sets"]) == ["gowalla"]
    summary = content["sets"]["gowalla"]["protocols"][GIVEN]
    assert "recall@20" in summary["systems"]["stage2"]
    tuned = ("popularity", "recent_popularity", "item_neighbours", "als", "ease")
    assert set(summary["systems"]) == {*tuned, "lambdamart", "stage1", "stage2"}
    assert summary["costs"]["stage1"]["cpu_seconds"] > 0
    # Of the fifteen items of a user's taste the few left are found; popularity cannot tell tastes.
    values = {name: entry["ndcg@10"]["mean"] for name, entry in summary["systems"].items()}
    assert values["ease"] > values["popularity"] + 0.1
    assert values["stage1"] > values["popularity"] + 0.1
    for text in (output.with_suffix(suffix).read_text() for suffix in (".json", ".md", ".html")):
        assert str(sets) not in text
