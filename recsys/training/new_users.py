"""Fits how lists of users whom training has not seen lean on popularity.

Some users are held out of a stage 1 as if they came one day, and get lists after 1, 3, 5, 10 and 20
of their events: by time, as a newcomer's come, and in random order, as in histories that were cut
or brought from elsewhere. Popularity is counted up to their first event, as it is when they come.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.histories import Histories
from recsys.feature_store.definitions import HALF_LIFE_DAYS, decay
from recsys.metrics import ndcg_at_k
from recsys.models.new_users import NewUserGate, NewUserSettings, blended, opening_lift
from recsys.models.two_tower import TwoTowerEnsemble
from recsys.popularity import standardized
from recsys.ranking import tie_hash

Items = NDArray[np.int64]
FitTwoTower = Callable[[Histories], TwoTowerEnsemble]

LENGTHS = (1, 3, 5, 10, 20)
HALF_LIVES = (7.0, 30.0, 90.0, 365.0, None)
"""Days; None counts all events alike."""
MAX_USERS = 500
UNFITTED = NewUserSettings(gate=None, half_life_days=HALF_LIFE_DAYS)
"""For data with too few users to tell."""

_SHARE_OF_USERS = 0.2
# With fewer, what is fitted would be noise.
_MIN_USERS = 30
_MIN_PER_GROUP = 15
_MIN_RELEVANT = 2
_K = 10
# Candidates of each kind: enough for the first ten of any blend.
_DEPTH = 100
_LAST = -1e30

_BIASES = tuple(float(bias) for bias in range(-3, 5))
_FADINGS = (0.0, 0.5, 1.0)
_SLOPES = (8.0, 16.0, 32.0)
_THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(-8, 31))


@dataclass(frozen=True)
class Newcomers:
    """Users who are held out, in the order in which they came.

    remaining: the events of the others; the same rows. users: int64 [V]. given: int64 [V], how many
    of their first events may be given; those after them are relevant.
    """

    remaining: Histories
    users: Items
    given: Items


@dataclass(frozen=True)
class Requests:
    """Requests [R] of newcomers, with the candidates [R, C] that any blend chooses from.

    scores: of stage 1, -inf in empty places. popularity: standardised over the catalogue.
    relevant: bool. mean, deviation: [R, 1], of stage 1's scores over the catalogue. number: int64
    [R], events given. opening: [R], see ``NewUserGate``. group: int64 [R], the same for histories
    of one length and order, even where that is by time. num_relevant: int64 [R].
    """

    scores: Tensor
    popularity: Tensor
    relevant: Tensor
    mean: Tensor
    deviation: Tensor
    number: Tensor
    opening: Tensor
    group: Tensor
    num_relevant: Tensor

    @classmethod
    def joined(cls, parts: Sequence["Requests"]) -> "Requests":
        """All of them, one after the other."""
        return cls(*(torch.cat([getattr(p, field.name) for p in parts]) for field in fields(cls)))


def fit_new_users(
    train: Histories, num_items: int, fit_two_tower: FitTwoTower, max_history: int, seed: int
) -> NewUserSettings:
    """The half-life of popularity, and the gate that lets it into newcomers' lists.

    Args:
        train: all training events. fit_two_tower: trains a stage 1 on the events that it is given.
        max_history: the latest events that a query is made of.
    """
    newcomers = draw_newcomers(train, seed)
    if newcomers is None:
        return UNFITTED
    half_life = choose_half_life(train, newcomers, num_items)
    model = fit_two_tower(newcomers.remaining)
    requests = requests_of(train, newcomers, model, half_life, max_history, seed)
    gate = choose_gate(requests)
    return NewUserSettings(gate, half_life)


def draw_newcomers(train: Histories, seed: int) -> Newcomers | None:
    """Random users who came in the later half of the log; None when there are too few.

    Before them there are events to count popularity from.
    """
    lengths = train.lengths
    first = np.full(len(lengths), np.iinfo(np.int64).min)
    has_events = lengths > 0
    first[has_events] = train.timestamps[train.offsets[:-1][has_events]]
    given = np.minimum(max(LENGTHS), lengths // 2)
    is_late = first >= np.median(train.timestamps)
    eligible = np.flatnonzero(has_events & is_late & (lengths - given >= _MIN_RELEVANT))
    number = min(MAX_USERS, int(_SHARE_OF_USERS * has_events.sum()), len(eligible))
    if number < _MIN_USERS:
        return None
    users = np.random.default_rng([seed, 2]).choice(eligible, number, replace=False)
    users = users[np.lexsort((users, first[users]))]
    return Newcomers(train.select(~np.isin(train.user_idx, users)), users, given[users])


def choose_half_life(train: Histories, newcomers: Newcomers, num_items: int) -> float | None:
    """The longest half-life whose lists are not worse, by more than chance, than the best's."""
    ndcg = np.zeros((len(HALF_LIVES), len(newcomers.users)))
    for row, half_life in enumerate(HALF_LIVES):
        for column, counts in enumerate(
            _popularity_at_arrival(train, newcomers, num_items, half_life)
        ):
            own = train.item_idx[_own(train, newcomers, column)]
            given = newcomers.given[column]
            later = own[given:]
            counts[0] = counts[own[:given]] = -1.0
            best = torch.from_numpy(counts).topk(min(_K, num_items)).indices
            hits = torch.isin(best, torch.from_numpy(later))[None]
            ndcg[row, column] = float(ndcg_at_k(hits, torch.tensor([len(later)]), _K))
    behind = ndcg[ndcg.mean(axis=1).argmax()] - ndcg
    error = behind.std(axis=1) / np.sqrt(ndcg.shape[1])
    return HALF_LIVES[int(np.flatnonzero(behind.mean(axis=1) <= error).max())]


def choose_gate(requests: Requests) -> NewUserGate | None:
    """The gate with the best mean NDCG over all lengths and orders of histories.

    By time counts twice, since that is how newcomers' histories come. None where no gate is better
    than stage 1 alone by more than chance.
    """
    best, best_ndcg = None, _ndcg(requests, torch.zeros(len(requests.number)))
    stage1, most = best_ndcg, _weighted(requests, best_ndcg)
    for gate in _gates():
        ndcg = _ndcg(requests, gate.shares(requests.opening, requests.number))
        if (found := _weighted(requests, ndcg)) > most:
            best, best_ndcg, most = gate, ndcg, found
    gain = best_ndcg - stage1
    is_chance = gain.mean() <= 2 * gain.std() / len(gain) ** 0.5
    return None if is_chance else best


def _gates() -> Iterator[NewUserGate]:
    for bias, fading in product(_BIASES, _FADINGS):
        yield NewUserGate(bias, 0.0, fading)
    for slope, threshold in product(_SLOPES, _THRESHOLDS):
        yield NewUserGate(-slope * threshold, slope, 0.0)


def _ndcg(requests: Requests, shares: Tensor) -> Tensor:
    """NDCG float64 [R] when popularity has these shares [R] of the scores."""
    one = requests
    scores = blended(one.scores, one.popularity, one.mean, one.deviation, shares[:, None])
    scores = scores.masked_fill(one.scores == -torch.inf, -torch.inf)
    best = scores.topk(min(_K, scores.shape[1]), dim=1).indices
    return ndcg_at_k(one.relevant.gather(1, best), one.num_relevant, _K)


def _weighted(requests: Requests, values: Tensor) -> float:
    """Mean over the groups that have requests enough to tell."""
    counts, totals = torch.bincount(requests.group), torch.bincount(requests.group, values)
    by_time = torch.arange(len(counts)) % 2 == 0
    weights = torch.where(by_time, 2.0, 1.0) * (counts >= _MIN_PER_GROUP)
    return float((weights * totals / counts.clamp(min=1)).sum() / weights.sum().clamp(min=1))


def _own(train: Histories, newcomers: Newcomers, number: int) -> slice:
    """Where the events of a newcomer are, oldest first."""
    user = newcomers.users[number]
    return slice(train.offsets[user], train.offsets[user + 1])


def _popularity_at_arrival(
    train: Histories, newcomers: Newcomers, num_items: int, half_life: float | None
) -> Iterator[NDArray[np.float64]]:
    """Counts float64 [num_items + 1] before each newcomer's first event, in a new array each."""
    remaining = newcomers.remaining
    in_time = np.argsort(remaining.timestamps, kind="stable")
    times, items = remaining.timestamps[in_time], remaining.item_idx[in_time]
    strengths = remaining.relative_weights[in_time]
    arrivals = train.timestamps[train.offsets[newcomers.users]]
    counts, start, since = np.zeros(num_items + 1), 0, arrivals[0]
    for arrival, end in zip(arrivals, np.searchsorted(times, arrivals), strict=True):
        weights = strengths[start:end] * decay(arrival - times[start:end], half_life)
        counts *= decay(arrival - since, half_life)
        counts += np.bincount(items[start:end], weights, minlength=num_items + 1)
        start, since = end, arrival
        yield counts.copy()


@torch.inference_mode()
def requests_of(
    train: Histories,
    newcomers: Newcomers,
    model: TwoTowerEnsemble,
    half_life: float | None,
    max_history: int,
    seed: int,
) -> Requests:
    """All requests of the newcomers, and their candidates by ``model`` and by popularity."""
    num_items = model.num_items
    lift = torch.from_numpy(opening_lift(newcomers.remaining, num_items))
    # Equal scores are taken in this order.
    by_hash = tie_hash(torch.arange(1, num_items + 1)).argsort() + 1
    embeddings = model.candidates(by_hash)
    rng = np.random.default_rng([seed, 3])
    average = torch.from_numpy(train.context[:1])
    sweep = _popularity_at_arrival(train, newcomers, num_items, half_life)
    found = []
    for number, counts in enumerate(sweep):
        popularity = torch.from_numpy(standardized(counts))[by_hash]
        events, num_given = _own(train, newcomers, number), int(newcomers.given[number])
        own, strengths = train.item_idx[events], train.relative_weights[events]
        lengths = [length for length in LENGTHS if length <= num_given]
        for shuffled, order in enumerate((np.arange(len(own)), rng.permutation(len(own)))):
            given, later = own[order[:num_given]], own[order[num_given:]]
            history, weights = (
                torch.from_numpy(values[order[: lengths[-1]]]).expand(len(lengths), -1)
                for values in (own, strengths)
            )
            places, ends = torch.arange(lengths[-1]), torch.tensor(lengths)[:, None]
            is_given = places < ends
            is_read = is_given & (places >= ends - max_history)
            context = average.expand(len(lengths), -1)
            query = model.query(history * is_read, is_read, context, weights * is_read)
            scores = query @ embeddings.T
            moments = scores.mean(dim=1, keepdim=True), scores.std(dim=1, keepdim=True)
            scores[:, torch.isin(by_hash, torch.from_numpy(given))] = -torch.inf
            columns = _candidates(scores, popularity)
            found.append(
                Requests(
                    scores.gather(1, columns),
                    popularity[columns],
                    torch.isin(by_hash, torch.from_numpy(later))[columns],
                    *moments,
                    ends[:, 0],
                    (lift[history] * is_given).sum(dim=1) / ends[:, 0],
                    2 * torch.arange(len(lengths)) + shuffled,
                    torch.full((len(lengths),), len(later)),
                )
            )
    return Requests.joined(found)


def _candidates(scores: Tensor, popularity: Tensor) -> Tensor:
    """Columns int64 [R, C] of the best by either, none twice.

    Args:
        scores: float [R, N], -inf for what must not be returned. popularity: float [N].
    """
    depth = min(_DEPTH, scores.shape[1])
    by_score = scores.topk(depth, dim=1).indices
    allowed = popularity.expand_as(scores).masked_fill(scores == -torch.inf, _LAST)
    allowed = allowed.scatter(1, by_score, -torch.inf)  # no column twice
    by_popularity = allowed.topk(min(depth, scores.shape[1] - depth), dim=1).indices
    return torch.cat([by_score, by_popularity], dim=1)
