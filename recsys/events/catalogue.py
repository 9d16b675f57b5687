"""Whose data set a store is: known by a sample of the catalogue, since ids alone say little."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recsys.schema import ExternalId

_SIZE = 256
_LEAST_SHARED = 0.1
"""Catalogues change between two trainings; those of two data sets have hardly an item in common,
id and title alike."""


@dataclass(frozen=True)
class CatalogueSketch:
    """The smallest hashes of a catalogue's items (MinHash; Broder 1997): the same items of it at
    any time, as long as they are there.

    hashes: ascending, unsigned 64 bits. Empty where no catalogue is known.
    """

    hashes: tuple[int, ...] = ()

    @classmethod
    def of(cls, item_ids: "Iterable[ExternalId]", titles: Iterable[str]) -> "CatalogueSketch":
        """Of items by id and title."""
        hashes = {
            int.from_bytes(blake2b(f"{item}\0{title}".encode(), digest_size=8).digest(), "big")
            for item, title in zip(item_ids, titles, strict=True)
        }
        return cls(tuple(sorted(hashes)[:_SIZE]))

    def fits(self, other: "CatalogueSketch") -> bool:
        """Whether both can be of one data set, at different times."""
        if not self.hashes or not other.hashes:
            return True
        # Up to here both know all that there are.
        end = min(one.hashes[-1] if len(one.hashes) == _SIZE else 2**64 for one in (self, other))
        mine, theirs = ({h for h in one.hashes if h <= end} for one in (self, other))
        return len(mine & theirs) > _LEAST_SHARED * min(len(mine), len(theirs))

    def as_text(self) -> str:
        """As stored."""
        return json.dumps(self.hashes)

    @classmethod
    def from_text(cls, text: str) -> "CatalogueSketch":
        """Of what ``as_text`` said."""
        return cls(tuple(json.loads(text or "[]")))


NO_CATALOGUE = CatalogueSketch()
