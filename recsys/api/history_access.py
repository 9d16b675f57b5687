"""Which lists tell the history of a stored user; ``Gate.admit`` says who is told.

Lists leave out what was seen. Whoever can narrow one down to chosen items, genres, years or words
reads from what is missing what was seen, item by item, and an explanation names it. To all but
those whom the gate admits, such a list is therefore made as for a user of whom nothing is known.
"""

from recsys.api.schemas import DEFAULT_TOP_K
from recsys.request import Request
from recsys.rules import Rules


def longest_plain_list(num_items: int) -> int:
    """How many items a list may hold before what is missing from it tells what was seen."""
    return max(DEFAULT_TOP_K, num_items // 2)


def tells_history(
    request: Request, own_rules: Rules, num_items: int, *, query: str | None, explained: bool
) -> bool:
    """Whether an answer tells more of a stored user's history than a plain list does.

    Args:
        own_rules: of the server. query: with the request. explained: whether explanations are asked
            for.
    """
    return request.user_id is not None and (
        explained
        or query is not None
        or request.context is not None
        or len(request.exclude) > 0
        or request.rules != own_rules
        or request.top_k > longest_plain_list(num_items)
    )
