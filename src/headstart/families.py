"""Families of encoders as data: which weights a model has, and what each dimension runs over.

Once every dimension has an axis, choosing layers, channels, heads and neurons is one verb:
index. A new family is one entry in `FAMILIES`; nothing else in the house knows a weight's name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headstart.errors import HeadstartError, nearest
from headstart.postnorm import (
    BERT,
    CAMEMBERT,
    DEBERTA_V2,
    DISTILBERT,
    ELECTRA,
    ROBERTA,
    XLM_ROBERTA,
)
from headstart.prenorm import MODERNBERT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headstart.layout import Config, Family

_TABLES = (BERT, XLM_ROBERTA, ROBERTA, CAMEMBERT, DISTILBERT, ELECTRA, DEBERTA_V2, MODERNBERT)
FAMILIES: Mapping[str, Family] = {family.model_type: family for family in _TABLES}
"""Every family that headstart can cut, by ``config.model_type``."""


def family_of(config: Config) -> Family:
    """Find the family of a model by its config.

    Raises:
        HeadstartError: The family has no table.
    """
    name = str(config.get("model_type", ""))
    if name not in FAMILIES:
        raise HeadstartError(
            f"models of type {name!r} have no table; {nearest(name, FAMILIES)}",
            where="config key model_type",
            way_out="add a Family to FAMILIES in headstart/families.py, see docs/families.md",
        )
    return FAMILIES[name]
