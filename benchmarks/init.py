"""Cutting a student on disk, beside what a user does by hand, and beside reading and writing alone.

    python benchmarks/init.py [large|base] [--rounds N]

A random XLM-RoBERTa of large shape (24 x 1024, 250,002 pieces, 2.2 GB) becomes 12 x 512, one of
base shape 6 x 384. Three processes take turns, each with the teacher in the page cache: headstart;
`from_pretrained`, a slice of every tensor, `save_pretrained`; and the limit, which reads the bytes
of the tensors that the student comes from and writes as many as the student has. Seconds are
without imports; memory is the peak resident size above that of a process that imported torch.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

SHAPES = {  # teacher: layers, hidden, heads; student: layers, hidden, heads
    "large": ((24, 1024, 16), (12, 512, 8)),
    "base": ((12, 768, 12), (6, 384, 6)),
}
PIECES = 250_002
BLOCK = 1 << 22  # bytes: headstart's blocks are no larger
REACH = "aims: 3 times as fast as by hand, 1.5 times the limit, student + 300 MB"


def peak() -> int:
    """Give this process' largest resident size so far, in bytes, its parent's not among it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def make_teacher(folder: Path, name: str) -> None:
    """Write a random teacher with a small tokenizer; weights repeat, which no side can tell."""
    import torch
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, models
    from transformers import (
        PreTrainedTokenizerFast,
        XLMRobertaConfig,
        XLMRobertaForSequenceClassification,
    )

    layers, hidden, heads = SHAPES[name][0]
    config = XLMRobertaConfig(
        vocab_size=PIECES, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=4 * hidden, num_labels=60, max_position_embeddings=514, type_vocab_size=1,
        architectures=["XLMRobertaForSequenceClassification"],
    )  # fmt: skip
    with torch.device("meta"):
        empty = XLMRobertaForSequenceClassification(config)
    noise = 0.02 * torch.randn(1 << 22)
    folder.mkdir(parents=True)
    tensors = {
        k: noise.repeat(v.numel() // len(noise) + 1)[: v.numel()].reshape(v.shape).clone()
        for k, v in empty.state_dict().items()
        if v.is_floating_point()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(folder)
    core = Tokenizer(models.Unigram([("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]))
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=core, **names).save_pretrained(folder)


def ours(teacher: Path, out: Path, name: str) -> float:
    """Cut with headstart."""
    import time

    from headstart.student import cut_checkpoint

    layers, hidden, _ = SHAPES[name][1]
    start = time.perf_counter()
    cut_checkpoint(teacher, out, shape={"layers": layers, "hidden": hidden})
    return time.perf_counter() - start


def by_hand(teacher: Path, out: Path, name: str) -> float:
    """Load, slice tensor by tensor, save: the usual answer in a forum."""
    import copy
    import time

    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    (old, _wide, _), (layers, hidden, heads) = SHAPES[name]
    start = time.perf_counter()
    model = AutoModelForSequenceClassification.from_pretrained(teacher)
    config = copy.deepcopy(model.config)
    config.num_hidden_layers, config.hidden_size = layers, hidden
    config.num_attention_heads, config.intermediate_size = heads, 4 * hidden
    student = AutoModelForSequenceClassification.from_config(config)
    theirs, made = model.state_dict(), {}
    for key, tensor in student.state_dict().items():
        parts = key.split(".")
        if "layer" in parts:
            at = parts.index("layer") + 1
            parts[at] = str((int(parts[at]) + 1) * old // layers - 1)
        source = theirs[".".join(parts)]
        for dim, length in enumerate(tensor.shape):
            step = source.shape[dim] // length
            source = source[(slice(None),) * dim + (slice(0, None, step),)]
        made[key] = source.contiguous()
    student.load_state_dict(made)
    student.save_pretrained(out)
    AutoTokenizer.from_pretrained(teacher).save_pretrained(out)
    return time.perf_counter() - start


def limit(teacher: Path, out: Path, name: str) -> float:
    """Read the tensors that a student comes from, and write as many bytes as it has."""
    import time

    (old, _, _), (layers, hidden, _) = SHAPES[name]
    kept = {(i + 1) * old // layers - 1 for i in range(layers)}
    out.mkdir(parents=True)
    start = time.perf_counter()
    buffer = bytearray(BLOCK)
    written = 0
    with (teacher / "model.safetensors").open("rb", buffering=0) as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        for key, entry in header.items():
            parts = key.split(".")
            is_layer = "layer" in parts
            if key == "__metadata__" or (
                is_layer and int(parts[parts.index("layer") + 1]) not in kept
            ):
                continue
            begin, end = entry["data_offsets"]
            file.seek(8 + size + begin)
            left = end - begin
            while left:
                left -= file.readinto(memoryview(buffer)[: min(left, BLOCK)])
            ways = sum(length % hidden == 0 for length in entry["shape"])
            written += (end - begin) >> ways
    with (out / "model.safetensors").open("wb", buffering=0) as file:
        while written > 0:
            written -= file.write(memoryview(buffer)[: min(written, BLOCK)])
    return time.perf_counter() - start


SIDES = {"ours": ours, "by hand": by_hand, "limit": limit}


def alone(side: str, teacher: Path, out: Path, name: str) -> tuple[float, int]:
    """Run one side in a process of its own: seconds, and bytes above torch."""
    done = subprocess.run(
        [sys.executable, __file__, name, "--side", side, "--at", str(teacher), str(out)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    seconds, memory = done.stdout.split()[-2:]
    return float(seconds), int(memory)


def race(name: str, rounds: int) -> None:
    """Let the three take turns, and print ratios of the best times."""
    with tempfile.TemporaryDirectory() as place:
        teacher = Path(place) / "teacher"
        make_teacher(teacher, name)
        found: dict[str, list[tuple[float, int]]] = {side: [] for side in SIDES}
        for i in range(rounds + 1):  # the first round fills the page cache
            for side in [*SIDES][i % 3 :] + [*SIDES][: i % 3]:  # from three on, each follows each
                out = Path(place) / "out"
                told = alone(side, teacher, out, name)
                size = sum(file.stat().st_size for file in out.iterdir())
                subprocess.run(["rm", "-r", str(out)], check=True)
                if i:
                    found[side].append(told)
                    if side == "ours":
                        student = size
    seconds = {side: min(s for s, _ in runs) for side, runs in found.items()}
    memory = {side: statistics.median(m for _, m in runs) for side, runs in found.items()}
    print(f"XLM-R {name}, student of {student / 1e6:,.0f} MB; {REACH}")
    for side in SIDES:
        print(f"  {side:<8} {seconds[side]:6.2f} s, {memory[side] / 1e6:6,.0f} MB above torch "
              f"(student + {(memory[side] - student) / 1e6:,.0f})")  # fmt: skip
    print(f"  by hand / ours {seconds['by hand'] / seconds['ours']:.2f}, "
          f"ours / limit {seconds['ours'] / seconds['limit']:.2f}")  # fmt: skip


def main() -> None:
    """Race, or be one side of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", nargs="?", choices=SHAPES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=SIDES)
    parser.add_argument("--at", nargs=2, type=Path)
    given = parser.parse_args()
    if given.side:
        import torch  # noqa: F401

        before = peak()
        import transformers.models.xlm_roberta.modeling_xlm_roberta  # noqa: F401

        seconds = SIDES[given.side](*given.at, given.name)
        print(seconds, peak() - before)
        return
    for name in [given.name] if given.name else SHAPES:
        race(name, given.rounds)


if __name__ == "__main__":
    main()
