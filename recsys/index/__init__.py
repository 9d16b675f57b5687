"""Maximum-inner-product search over candidate embeddings."""

from recsys.index.candidate_index import CandidateIndex
from recsys.index.exclusions import Exclusion

__all__ = ["CandidateIndex", "Exclusion"]
