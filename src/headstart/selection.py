"""What a student keeps of its teacher: layers, channels, heads and neurons, as plain data.

No tensor is touched here, so that a selection can be printed, stored as JSON, composed with
another, and made before any work.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from headstart.errors import HeadstartError
from headstart.layout import Axis, Dim, Shape, dim_length

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Picks = tuple[int, ...]
UNITS: tuple[Axis, ...] = ("attention", "ffn")  # what a layer may take from several layers
SIZES = ("layers", "hidden", "heads", "ffn")
SOURCES = ("teacher", "base", "scratch", "permuted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What a student keeps of its teacher, by the teacher's own numbers.

    Args:
        teacher: The teacher's shape.
        layers: Layers, in the student's order.
        hidden: Channels of the residual stream; one set for the whole model.
        attention: For each kept layer, channels of the heads; whole heads are runs of
            ``head_size`` channels.
        ffn: For each kept layer, neurons of the feed-forward block.
        attention_of: For each kept layer, the teacher's layer of each of its ``attention``;
            empty where all are of the kept layer.
        ffn_of: The same of ``ffn``.
        source: Where the first weights come from, one of `SOURCES`.
        rules: Name of the rule behind each of the four sizes.

    Raises:
        HeadstartError: An index is out of range or occurs twice, or layers differ in size.
    """

    teacher: Shape
    layers: Picks
    hidden: Picks
    attention: tuple[Picks, ...]
    ffn: tuple[Picks, ...]
    attention_of: tuple[Picks, ...] = ()
    ffn_of: tuple[Picks, ...] = ()
    source: str = "teacher"
    rules: Mapping[str, str]

    def __post_init__(self) -> None:
        """Check every index."""
        width = self.teacher.heads * self.teacher.head_size
        _check_picks("layers", self.layers, self.teacher.layers)
        _check_picks("hidden", self.hidden, self.teacher.hidden)
        for name, rows, origins, length in (
            ("attention", self.attention, self.attention_of, width),
            ("ffn", self.ffn, self.ffn_of, self.teacher.ffn),
        ):
            if len(rows) != len(self.layers) or len({len(row) for row in rows}) > 1:
                raise _broken(f"{name} needs one list per kept layer, all of one length")
            if origins and [len(row) for row in origins] != [len(row) for row in rows]:
                raise _broken(f"{name}_of needs a layer for each of {name}")
            for j, row in enumerate(rows):
                of = origins[j] if origins else (self.layers[j],) * len(row)
                _check_picks("layers", tuple(set(of)), self.teacher.layers)
                for donor in set(of):
                    own = tuple(i for i, layer in zip(row, of, strict=True) if layer == donor)
                    _check_picks(name, own, length)
        if len(self.attention[0]) != len(self.hidden) or len(self.hidden) % self.teacher.head_size:
            raise _broken("hidden channels must be as many as those of whole heads")

    @property
    def student(self) -> Shape:
        """The student's shape; a head keeps its width."""
        heads = len(self.attention[0]) // self.teacher.head_size
        return Shape(len(self.layers), len(self.hidden), heads, len(self.ffn[0]))

    @property
    def heads(self) -> tuple[Picks, ...]:
        """Numbers of the kept heads, for each kept layer; empty where a head was cut across."""
        size = self.teacher.head_size
        starts = range(0, len(self.attention[0]), size)
        rows: list[Picks] = []
        for j, row in enumerate(self.attention):
            of = self._of("attention", j)
            whole = all(
                sorted(row[i : i + size]) == _run(min(row[i : i + size]), size)
                and len(set(of[i : i + size])) == 1
                for i in starts
            )
            rows.append(tuple(row[i] // size for i in starts) if whole else ())
        return tuple(rows)

    def donors(self, dims: Sequence[Dim], layer: int | None) -> tuple[int | None, ...]:
        """List the teacher's layers that a student's tensor is made of, in ascending order.

        Args:
            dims: What its dimensions run over.
            layer: The student's layer that it is in; None outside the layers, where it is made of
                the one tensor that is in no layer either.
        """
        if layer is None:
            return (None,)
        found = [axis for axis in _axes(dims) if axis in UNITS]
        return tuple(sorted(set(self._of(found[0], layer)))) if found else (self.layers[layer],)

    def keep(
        self, dim: Dim, layer: int | None, sizes: Mapping[Axis, int], donor: int | None = None
    ) -> Picks | None:
        """Say which indices of one dimension of a teacher's tensor the student keeps.

        Args:
            dim: What the dimension runs over.
            layer: The student's layer that the tensor is in; None outside the layers.
            sizes: The teacher's length of each axis.
            donor: The teacher's layer that the tensor is in; the kept one if not named.

        Returns:
            Indices, or None to keep the dimension whole.
        """
        if isinstance(dim, tuple):
            parts = [self.keep(part, layer, sizes, donor) for part in dim]
            starts = [dim_length(dim[:i], sizes) for i in range(len(dim))]
            return tuple(
                start + k
                for start, part, axis in zip(starts, parts, dim, strict=True)
                for k in (range(sizes[axis]) if part is None else part)
            )
        if dim == "hidden":
            return self.hidden
        if layer is not None and dim in UNITS:
            row = (self.attention if dim == "attention" else self.ffn)[layer]
            return tuple(row[i] for i in self.places(dim, layer, donor))
        return None

    def places(self, dim: Dim, layer: int, donor: int | None = None) -> Picks:
        """Say where in the student's dimension stands what `keep` takes from a donor."""
        donor = self.layers[layer] if donor is None else donor
        parts = dim if isinstance(dim, tuple) else (dim,)
        origins = [self._of(part, layer) for part in parts]
        flat = [origin for row in origins for origin in row]
        return tuple(i for i, origin in enumerate(flat) if origin == donor)

    def _of(self, axis: str, layer: int) -> Picks:
        """Give the teacher's layer of each unit of one of the student's."""
        rows, origins = (
            (self.attention, self.attention_of) if axis == "attention" else (self.ffn, self.ffn_of)
        )
        return origins[layer] if origins else (self.layers[layer],) * len(rows[layer])

    def compose(self, inner: Selection) -> Selection:
        """Give the one selection that does what this one, then `inner`, do.

        Args:
            inner: A selection whose teacher is this one's student.

        Raises:
            HeadstartError: `inner` was made for a model of another shape.
        """
        if inner.teacher != self.student:
            raise _broken(f"a cut of {inner.teacher} cannot follow one that gives {self.student}")
        attention, attention_of = self._through("attention", inner)
        ffn, ffn_of = self._through("ffn", inner)
        return Selection(
            teacher=self.teacher,
            layers=tuple(self.layers[i] for i in inner.layers),
            hidden=tuple(self.hidden[i] for i in inner.hidden),
            attention=attention,
            ffn=ffn,
            attention_of=attention_of,
            ffn_of=ffn_of,
            source=inner.source,
            rules={size: f"{self.rules[size]} > {inner.rules[size]}" for size in SIZES},
        )

    def _through(self, axis: Axis, inner: Selection) -> tuple[tuple[Picks, ...], ...]:
        """Follow the units of a second cut back to the teacher: numbers, and their layers."""
        outer, picks = (
            (one.attention if axis == "attention" else one.ffn) for one in (self, inner)
        )
        rows: list[Picks] = []
        origins: list[Picks] = []
        for j, row in enumerate(picks):
            found = list(zip(inner._of(axis, j), row, strict=True))
            rows.append(tuple(outer[layer][i] for layer, i in found))
            origins.append(tuple(self._of(axis, layer)[i] for layer, i in found))
        return tuple(rows), named_origins(origins, tuple(self.layers[i] for i in inner.layers))

    def to_json(self) -> str:
        """Write the selection as JSON; `heads` is added for readers and not read back."""
        plain = asdict(self) | {"heads": self.heads, "rules": dict(self.rules)}
        return json.dumps(plain, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Selection:
        """Read what `to_json` wrote.

        Raises:
            HeadstartError: The text is not a selection.
        """
        try:
            plain: dict[str, Any] = json.loads(text)
            return cls(
                teacher=Shape(**plain["teacher"]),
                layers=tuple(plain["layers"]),
                hidden=tuple(plain["hidden"]),
                attention=tuple(tuple(row) for row in plain["attention"]),
                ffn=tuple(tuple(row) for row in plain["ffn"]),
                attention_of=tuple(tuple(row) for row in plain.get("attention_of", ())),
                ffn_of=tuple(tuple(row) for row in plain.get("ffn_of", ())),
                source=plain["source"],
                rules=plain["rules"],
            )
        except (KeyError, TypeError, json.JSONDecodeError) as fault:
            raise _broken(f"not a selection: {fault!r}") from fault


def _run(start: int, size: int) -> list[int]:
    return list(range(start // size * size, start // size * size + size))


def groups(layers: Picks) -> list[Picks]:
    """Give each kept layer those that it stands for: itself, and all since the one kept before."""
    starts = (0, *(layer + 1 for layer in layers[:-1]))
    return [tuple(range(a, b + 1)) for a, b in zip(starts, layers, strict=True)]


def named_origins(origins: Sequence[Picks], layers: Picks) -> tuple[Picks, ...]:
    """Leave out the layers that units come from where each comes from the kept layer."""
    own = all(set(row) == {layer} for row, layer in zip(origins, layers, strict=True))
    return () if own else tuple(origins)


def _axes(dims: Sequence[Dim]) -> list[Axis]:
    return [axis for dim in dims for axis in (dim if isinstance(dim, tuple) else (dim,))]


def _check_picks(name: str, picks: Picks, length: int) -> None:
    if not picks or len(set(picks)) != len(picks) or not 0 <= min(picks) <= max(picks) < length:
        raise _broken(f"{name} must be different numbers from 0 to {length - 1}: {picks[:8]}…")


def _broken(what: str) -> HeadstartError:
    return HeadstartError(what, where="selection", way_out="make the selection with rules.choose")


def full(teacher: Shape) -> Selection:
    """Keep everything."""
    rows = tuple(range(teacher.heads * teacher.head_size)), tuple(range(teacher.ffn))
    return Selection(
        teacher=teacher,
        layers=tuple(range(teacher.layers)),
        hidden=tuple(range(teacher.hidden)),
        attention=(rows[0],) * teacher.layers,
        ffn=(rows[1],) * teacher.layers,
        rules=dict.fromkeys(SIZES, "all"),
    )
