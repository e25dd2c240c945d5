"""A tiny world on disk: a base model, labelled text in three languages, and a recipe for them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.checkpoint import save_model
from headstart.loading import load_recipe
from tiny import tiny_model, tiny_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from headstart.recipe import Recipe

LABELS = ("alarm", "music", "weather")
WORDS = ("wake", "me", "the", "sing", "er", "zebra", "q", "loud", "rain", "at", "noon")
ROWS = {"train": 24, "dev": 12, "test": 12}


def write_base(folder: Path) -> Path:
    """Write a tiny pre-trained encoder with its tokenizer."""
    save_model(tiny_model("bert", "none", layers=4, sharp=False), tiny_tokenizer(), folder)
    return folder


def write_texts(folder: Path, *, languages: tuple[str, ...] = ("aa", "bb", "cc")) -> Path:
    """Write one JSON-lines file a language; the first word tells the label."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for language in languages:
        rows: list[str] = []
        for split, count in ROWS.items():
            for i in range(count):
                label = i % len(LABELS)
                rest = " ".join(rng.choice(WORDS, size=rng.integers(1, 5)))
                text = f"{LABELS[label][:2]} {rest} {split[1]} {i}"
                rows.append(json.dumps({"split": split, "text": text, "label": LABELS[label]}))
        (folder / f"{language}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def write_tagged(folder: Path, *, languages: tuple[str, ...] = ("aa", "bb", "cc")) -> Path:
    """Write tagged sentences; a word that starts with z is a person."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for language in languages:
        rows: list[str] = []
        for split, count in ROWS.items():
            for _ in range(count):
                tokens = [*rng.choice(WORDS, size=rng.integers(2, 6)), "zebra"]
                tags = ["B-PER" if token.startswith("z") else "O" for token in tokens]
                rows.append(json.dumps({"split": split, "tokens": tokens, "tags": tags}))
        (folder / f"{language}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def world(folder: Path, **more: Any) -> Recipe:
    """Write base and texts, and give the recipe for them; `more` overrides its parts."""
    tagging = more.get("task") == "tagging"
    texts = write_tagged(folder / "texts") if tagging else write_texts(folder / "texts")
    settings: dict[str, Any] = {
        "name": "tiny",
        "task": "classification",
        "data": {
            "corpus": "local",
            "folder": str(texts),
            "languages": ["aa", "bb"],
            "zero_shot": ["cc"],
        },
        "teacher": {
            "base": str(write_base(folder / "base")),
            "finetune": {"epochs": 4, "learning_rate": 5e-3, "batch_tokens": 128},
        },
        "student": {"layers": 2},
        "train": {
            "objective": {"labels": 0.5, "mse": 0.5},
            "epochs": 2,
            "learning_rate": 3e-3,
            "batch_tokens": 128,
        },
    }
    return load_recipe(settings | more)
