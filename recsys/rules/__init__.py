"""Business rules: which items may be returned, and in which order besides that of scores."""

from recsys.rules.arranging import Arranged, arrange
from recsys.rules.filtering import passing
from recsys.rules.item_table import ItemTable
from recsys.rules.named_items import NamedItems
from recsys.rules.rules import Rules

__all__ = ["Arranged", "ItemTable", "NamedItems", "Rules", "arrange", "passing"]
