"""What a family's table means for one config: names, lengths, counts, and a checkpoint's fit.

A table names weights in general; this room makes them concrete. Everything here is arithmetic on
names and numbers, so that shapes and sizes can be told before any weight is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING, Any, Literal

from headstart.errors import HeadstartError

if TYPE_CHECKING:
    from headstart.flow import Flow

Axis = Literal[
    "vocab", "position", "segment", "relative", "embedding", "hidden", "attention", "ffn",
    "labels", "kernel",
]  # fmt: skip
Dim = Axis | tuple[Axis, ...]
"""What one dimension runs over: an axis, or several laid end to end (fused weights)."""
Head = Literal["classification", "tagging", "mlm", "none"]
Part = Literal["vocabulary", "transformer", "head"]
Config = Mapping[str, Any]
"""A transformers config as `to_dict` gives it."""
Condition = Callable[[Config], bool]

ARCHITECTURES: Mapping[Head, str] = {
    "classification": "ForSequenceClassification",
    "tagging": "ForTokenClassification",
    "mlm": "ForMaskedLM",
    "none": "Model",
}
"""How the name of a transformers class ends, for each head."""
SIZES: Mapping[str, str] = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "ffn": "intermediate_size",
}
# Keys that repeat the hidden size; one that differs from it means something else, and stays.
_FOLLOWERS = ("embedding_size", "pooler_hidden_size")


def always(_: Config) -> bool:
    """Hold for every config."""
    return True


def never(_: Config) -> bool:
    """Hold for no config."""
    return False


@dataclass(frozen=True, slots=True)
class Weight:
    """One weight of a family.

    Args:
        name: Its name; ``{p}`` stands for the prefix that task models put before the encoder's
            weights, ``{i}`` for the layer's number.
        axes: What each dimension runs over, in order.
        when: Which configs have it.
        tied: Name of the weight that it shares, where the config ties word embeddings.
        skips_first: The first layer lacks it.
    """

    name: str
    axes: tuple[Dim, ...]
    when: Condition = always
    tied: str = ""
    skips_first: bool = False


def dense(path: str, out: Dim, into: Dim) -> tuple[Weight, Weight]:
    """Name weight and bias of a linear map."""
    return Weight(f"{path}.weight", (out, into)), Weight(f"{path}.bias", (out,))


def norm(path: str, axis: Axis = "hidden") -> tuple[Weight, Weight]:
    """Name gain and bias of a LayerNorm."""
    return Weight(f"{path}.weight", (axis,)), Weight(f"{path}.bias", (axis,))


def given(condition: Condition, *weights: Weight) -> tuple[Weight, ...]:
    """Put a condition on weights that only some configs have."""
    return tuple(replace(weight, when=condition) for weight in weights)


def flag(key: str, *, default: bool) -> Condition:
    """Hold for configs that switch a key on."""
    return lambda config: bool(config.get(key, default))


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One family of encoders.

    Args:
        model_type: As ``config.model_type`` has it.
        prefix: What task models put before the encoder's weights, with its dot.
        stem: Weights outside the layers and the task heads.
        layer: Weights of one layer.
        heads: Weights of each task head; ``none`` is the bare encoder, which may have a pooler.
        flow: What refit must know.
        leftovers: Patterns (regular expressions, matched at the start, prefix taken off) of
            tensors that published checkpoints carry and no student needs.
        keys: Config key of each size.
        per_layer: Config keys that hold one value per layer; kept layers take theirs along.
        keep_first: Configs whose first layer differs from the others, so that the named layer
            rules keep it as the student's first.
    """

    model_type: str
    prefix: str
    stem: tuple[Weight, ...]
    layer: tuple[Weight, ...]
    heads: Mapping[Head, tuple[Weight, ...]]
    flow: Flow
    leftovers: tuple[str, ...] = ()
    keys: Mapping[str, str] = field(default_factory=lambda: dict(SIZES))
    per_layer: tuple[str, ...] = ()
    keep_first: Condition = never


@dataclass(frozen=True, slots=True)
class Shape:
    """The four sizes of an encoder; a head is ``hidden / heads`` wide in every family here."""

    layers: int
    hidden: int
    heads: int
    ffn: int

    def __str__(self) -> str:
        """Say it as a message does."""
        return f"{self.layers} layers x {self.hidden}, {self.heads} heads, {self.ffn} neurons"

    @property
    def head_size(self) -> int:
        """Width of one head."""
        return self.hidden // self.heads


@dataclass(frozen=True, slots=True)
class Traits:
    """What makes a teacher's layers differ from one another, besides their weights.

    Args:
        keep_first: The first layer is unlike the others, and stays the first.
        kinds: What kind of attention each layer has; empty where all are alike.
    """

    keep_first: bool = False
    kinds: tuple[str, ...] = ()


def traits_of(family: Family, config: Config) -> Traits:
    """Read from a config how layers differ."""
    told = [config[key] for key in family.per_layer if config.get(key) is not None]
    return Traits(family.keep_first(config), tuple(map(str, zip(*told, strict=True))))


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor that a model with a given config and head has.

    Args:
        template: Its name with ``{p}`` and ``{i}`` still open.
        layer: Number of its layer, None outside the layers.
        axes: As in `Weight`, ``embedding`` already replaced where it is the hidden axis.
        part: What the tensor belongs to, for counts.
        tied: Template of the weight that it shares, or empty.
    """

    template: str
    layer: int | None
    axes: tuple[Dim, ...]
    part: Part
    tied: str = ""

    def name(self, prefix: str, layer: int | None = None) -> str:
        """Name the tensor, in another layer where one is given."""
        return self.template.format(p=prefix, i=self.layer if layer is None else layer)


def shape_of(family: Family, config: Config) -> Shape:
    """Read the four sizes from a config."""
    return Shape(**{size: int(config[key]) for size, key in family.keys.items()})


def lengths(family: Family, config: Config) -> dict[Axis, int]:
    """Give each axis its length."""
    shape = shape_of(family, config)
    span = int(config.get("max_relative_positions", -1))
    span = span if span > 0 else int(config["max_position_embeddings"])
    buckets = int(config.get("position_buckets", -1))
    return {
        "vocab": int(config["vocab_size"]),
        "position": int(config["max_position_embeddings"]),
        "segment": int(config.get("type_vocab_size", 0)),
        "relative": 2 * (buckets if buckets > 0 else span),
        "embedding": int(config.get("embedding_size", shape.hidden)),
        "hidden": shape.hidden,
        "attention": shape.heads * shape.head_size,
        "ffn": shape.ffn,
        "labels": len(config.get("id2label") or (0, 1)),
        "kernel": int(config.get("conv_kernel_size", 0)),
    }


def entries(family: Family, config: Config, head: Head) -> list[Entry]:
    """List every tensor of a model, in the table's order; lists tied ones too."""
    return list(_walk(family, config, head))


def _walk(family: Family, config: Config, head: Head) -> Iterator[Entry]:
    sizes = lengths(family, config)
    same = sizes["embedding"] == sizes["hidden"]
    ties = bool(config.get("tie_word_embeddings", True))

    def made(weight: Weight, part: Part, layer: int | None = None) -> Iterator[Entry]:
        if weight.when(config) and not (weight.skips_first and layer == 0):
            axes: tuple[Dim, ...] = tuple(
                "hidden" if same and axis == "embedding" else axis for axis in weight.axes
            )
            yield Entry(weight.name, layer, axes, part, weight.tied if ties else "")

    for weight in family.stem:
        yield from made(weight, "vocabulary" if "vocab" in weight.axes else "transformer")
    for layer in range(shape_of(family, config).layers):
        for weight in family.layer:
            yield from made(weight, "transformer", layer)
    for weight in family.heads[head]:
        yield from made(weight, "head")


def dim_length(dim: Dim, sizes: Mapping[Axis, int]) -> int:
    """Give the length of one dimension, fused parts added up."""
    return sum(sizes[part] for part in dim) if isinstance(dim, tuple) else sizes[dim]


def tensor_shape(entry: Entry, sizes: Mapping[Axis, int]) -> tuple[int, ...]:
    """Give the shape that a tensor must have."""
    return tuple(dim_length(dim, sizes) for dim in entry.axes)


def count_parameters(family: Family, config: Config, head: Head) -> dict[str, int]:
    """Count parameters from a config alone, shared ones once.

    Returns:
        ``total``, and its parts ``vocabulary`` (word embeddings), ``transformer`` and ``head``
        (poolers counted as head).
    """
    sizes = lengths(family, config)
    counts = {"total": 0, "vocabulary": 0, "transformer": 0, "head": 0}
    for entry in entries(family, config, head):
        if not entry.tied:
            counts[entry.part] += prod(tensor_shape(entry, sizes))
    counts["total"] = sum(counts.values())
    return counts


def student_changes(
    family: Family, config: Config, shape: Shape, *, layers: tuple[int, ...]
) -> dict[str, Any]:
    """Say which config keys a student changes; all others stay as the teacher has them.

    Args:
        family: The teacher's.
        config: The teacher's.
        shape: The student's.
        layers: Which of the teacher's layers it keeps, in order.

    Raises:
        HeadstartError: The student would lose the projection of its word embeddings.
    """
    hidden, width = shape_of(family, config).hidden, lengths(family, config)["embedding"]
    if hidden != width == shape.hidden:
        raise HeadstartError(
            f"a {family.model_type} with hidden = {width}, the width of its word embeddings, "
            "has no projection between the two",
            where="recipe key student.hidden",
            way_out="choose another hidden size",
        )
    changes: dict[str, Any] = {key: getattr(shape, size) for size, key in family.keys.items()}
    changes |= {key: shape.hidden for key in _FOLLOWERS if config.get(key) == hidden}
    for key in family.per_layer:
        values = config.get(key)
        if values is not None:
            changes[key] = [values[i] for i in layers]
    return changes
