"""Cut the quickstart corpus out of MASSIVE: python tools/make_quickstart_data.py MASSIVE_FOLDER.

The folder holds one Parquet file per locale with the columns id, split, text and intent, the same
ids in the same order in each. Rows are taken in that order, so the result is always the same.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from headstart.sources import QUICKSTART_INTENTS as INTENTS

LOCALES = (
    "en-US", "de-DE", "es-ES", "tr-TR", "ru-RU", "ar-SA", "hi-IN", "th-TH", "zh-CN", "sw-KE",
    "pt-PT", "cy-GB",
)  # fmt: skip
PER_INTENT = {"train": 10, "dev": 4, "test": 6}
OUT = Path(__file__).parents[1] / "src/headstart/data/quickstart/massive.parquet"


def choose(tables: dict[str, pa.Table]) -> list[int]:
    """Choose row numbers: for each split the first rows of each intent, intents in turn.

    A row is passed over if its text, in any locale, is already in the extract.
    """
    texts = {locale: table["text"].to_pylist() for locale, table in tables.items()}
    first = next(iter(tables.values()))
    splits, intents = first["split"].to_pylist(), first["intent"].to_pylist()
    seen: set[tuple[str, str]] = set()
    chosen: list[int] = []
    for split, count in PER_INTENT.items():
        rows: dict[str, list[int]] = {intent: [] for intent in INTENTS}
        for row, intent in enumerate(intents):
            here = {(locale, texts[locale][row]) for locale in tables}
            if splits[row] != split or len(rows.get(intent, range(count))) == count or here & seen:
                continue
            seen |= here
            rows[intent].append(row)
        chosen += [row for turn in zip(*rows.values(), strict=True) for row in turn]
    return chosen


def main() -> None:
    """Write the extract."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("massive", type=Path, metavar="MASSIVE_FOLDER")
    folder = parser.parse_args().massive
    columns = ["id", "split", "text", "intent"]
    tables = {name: pq.read_table(folder / f"{name}.parquet", columns=columns) for name in LOCALES}
    rows = choose(tables)
    parts = [
        pa.table(
            {
                "id": table["id"].take(rows),
                "language": [locale] * len(rows),
                "split": table["split"].take(rows),
                "text": table["text"].take(rows),
                "label": table["intent"].take(rows),
            }
        )
        for locale, table in tables.items()
    ]
    whole = pa.concat_tables(parts).combine_chunks()
    pq.write_table(whole, OUT, compression="zstd", compression_level=19)
    print(f"{OUT.name}: {len(whole)} rows, {OUT.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
