"""Classes that a table stores as numbers, beside their names: how 🤗 datasets keeps labels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pyarrow as pa

NOTE = b"headstart.classes"  # in a table's metadata: JSON, column to class names


def decode_classes(table: pa.Table, features: Mapping[str, Any]) -> pa.Table:
    """Put names in the place of class ids, and note their order for `classes_of`.

    Args:
        table: Columns of ids, or of lists of ids; -1 stands for no label.
        features: How 🤗 datasets describes the columns, `Features.to_dict()`.
    """
    orders: dict[str, tuple[str, ...]] = {}
    for place, name in enumerate(table.column_names):
        classes = _class_names(features.get(name))
        column = table[name].combine_chunks()
        if not classes:
            continue
        orders[name] = classes
        ids = column.to_pylist()
        if pa.types.is_integer(column.type):
            table = table.set_column(place, name, pa.array(_named(ids, classes), pa.string()))
        elif pa.types.is_list(column.type) and pa.types.is_integer(column.type.value_type):
            rows = [_named(row, classes) for row in ids]
            table = table.set_column(place, name, pa.array(rows, pa.list_(pa.string())))
    return table.replace_schema_metadata({NOTE: json.dumps(orders)})


def classes_of(table: pa.Table, column: str) -> tuple[str, ...]:
    """Find the names of a column's classes in the order of their ids; empty if none are known."""
    note = (table.schema.metadata or {}).get(NOTE, b"{}")
    return tuple(json.loads(note).get(column, ()))


def _class_names(feature: object) -> tuple[str, ...]:
    """Find names in the description of a column of classes, or of lists of them."""
    if isinstance(feature, list):  # how datasets 3 and older describe lists
        return _class_names(cast("list[object]", feature)[0] if feature else None)
    if not isinstance(feature, Mapping):
        return ()
    described = cast("Mapping[str, Any]", feature)
    if described.get("_type") == "ClassLabel":
        return tuple(described.get("names") or ())
    return _class_names(described.get("feature"))


def _named(ids: Sequence[int | None] | None, classes: tuple[str, ...]) -> list[str | None]:
    known = range(len(classes))
    return [classes[i] if i is not None and i in known else None for i in ids or ()]
