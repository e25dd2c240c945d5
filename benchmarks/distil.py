"""A whole distillation beside what else does it, and beside the arithmetic alone.

    pip install textbrewer
    python benchmarks/distil.py [--pieces 50000] [--rows 40] [--threads N] [--device cuda]
        [--tokenizer FOLDER] [--massive FOLDER] [--only NAME ...]

A 12 x 768 teacher answers, a 6 x 384 student learns its logits by mean squared error, for three
epochs over the train rows of the packaged MASSIVE extract (10 locales), or of 12 locales of a
folder of MASSIVE's files. Each side starts from the same weights: headstart (teacher pass first,
then batches by length, only the embedding's rows that occur); TextBrewer's GeneralDistiller and a
transformers Trainer whose compute_loss asks the teacher, both as customary (random batches of 32,
padded to the longest), and both with headstart's batches; and the Trainer once more with the
teacher's answers kept, as one who writes that by hand would have it. All are in fp32, with the same
AdamW and clipping, and schedules of their own; nobody evaluates or saves. headstart has no dropout,
as its users run it, but in the lines that say so; all others have it. The second line has the
default batch of 1,024 pieces, and so fewer steps; all others have as many as 32 texts. A second arm
finds the teacher's answers there. Where products in bf16 are fast, more lines run in it: headstart
with the default batch, with the others' (on an accelerator eight times the default instead), and
with the others', dropout and the whole table; and the Trainer. headstart's teacher pass stays in
fp32, the Trainer's teacher runs in bf16. The limit is the products of the student's matrices on
real pieces, forward and backward, at the rate of bare products in the same precision (bf16 on an
accelerator), the mean of what was measured right before and right after; of headstart those that it
makes, since it works the last layer out for the piece that the head reads (whose part in that layer
is not counted).
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import Accelerator
from textbrewer import DistillationConfig, GeneralDistiller, TrainingConfig
from torch.utils.data import DataLoader
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainingArguments,
)

from headstart.encode import collate
from headstart.loading import load_recipe
from headstart.pieces import load_tokenizer
from headstart.prepare import has_fast_bf16, optimizer_for, set_rate
from headstart.settings import Train
from headstart.stages import base_of, job_for
from headstart.teacher import teacher_pass
from headstart.tokenized import open_text
from headstart.train import Dev, batches_of, fit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headstart.tokenized import Text

Model = BertForSequenceClassification
LOCALES = ["en-US", "de-DE", "fr-FR", "es-ES", "tr-TR", "ar-SA", "hi-IN", "zh-CN", "sw-KE", "id-ID",
           "th-TH", "fi-FI"]  # fmt: skip
EPOCHS, RATE, BATCH, LABELS = 3, 1e-4, 32, 60


def models(pieces: int) -> tuple[Model, Model]:
    """Make teacher and student with random weights; what is learned does not matter here."""
    torch.manual_seed(0)
    made = []
    for layers, hidden, heads in ((12, 768, 12), (6, 384, 6)):
        config = BertConfig(
            vocab_size=pieces, hidden_size=hidden, num_hidden_layers=layers,
            num_attention_heads=heads, intermediate_size=4 * hidden, num_labels=LABELS,
        )  # fmt: skip
        made.append(BertForSequenceClassification(config).eval())
    return made[0], made[1]


def texts(rows: int, named: str | None = None, massive: str | None = None) -> Text:
    """Tokenize train rows, as a model's folder or the packed base does."""
    asked = [f"data.examples_per_language={rows}"]
    if massive:
        asked += ["data.corpus=massive", f"data.folder={massive}", "data.zero_shot=[]"]
        asked += [f"data.languages=[{', '.join(LOCALES)}]"]
    recipe = load_recipe("quickstart", asked)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = load_tokenizer(named or str(base_of(recipe, Path(folder))))
        return open_text(recipe.data, recipe.task, tokenizer)


def ours(  # noqa: PLR0913 - what its sides differ in
    text: Text, teacher: Model, student: Model, *, embeddings: str, tokens: int, dropout: str,
    precision: str = "fp32", is_second: bool = False,
) -> dict[str, float]:  # fmt: skip
    """Ask the teacher once, then train; a second arm finds its answers there."""
    accelerator = Accelerator(cpu=student.device.type == "cpu")
    settings = Train.model_validate(
        {"objective": {"mse": 1.0}, "epochs": EPOCHS, "learning_rate": RATE, "precision": precision,
         "batch_tokens": tokens, "word_embeddings": embeddings, "dropout": dropout}
    )  # fmt: skip
    train = text.splits["train"]
    with tempfile.TemporaryDirectory() as folder:
        ask = partial(
            teacher_pass, teacher, train, Path(folder), weights="random", accelerator=accelerator
        )
        if is_second:
            ask()
        start = time.perf_counter()
        answers = ask()
        asked = time.perf_counter() - start
        job = job_for(text, settings, accelerator, seed=0, teacher=answers.logits)
        object.__setattr__(job, "evaluate", lambda _: Dev(0.0, 0.0))
        progress = fit(student, job)
        whole = time.perf_counter() - start
    return {"whole": whole, "teacher": asked, "loop": progress.seconds}


class Batches:
    """Batches of one epoch after the other, as dictionaries."""

    def __init__(self, text: Text, tokens: int | None, *, numbered: bool = False) -> None:
        """Cut them at random, or as headstart does; labels may be numbers of rows instead."""
        self.numbered = numbered
        self.train, self.epoch = text.splits["train"], 0
        settings = Train.model_validate({"batch_tokens": tokens or BATCH})
        self.job = job_for(text, settings, Accelerator(), seed=0)  # the one that is open
        self.by_length = tokens is not None

    def __len__(self) -> int:
        """Count those of an epoch."""
        if self.by_length:
            return len(batches_of(self.job, 0))
        return -(-len(self.train) // BATCH)

    def __iter__(self) -> Iterator[list[int]]:
        """Give the rows of each."""
        self.epoch += 1
        if self.by_length:
            yield from (index.tolist() for index in batches_of(self.job, self.epoch - 1))
            return
        order = np.random.default_rng(self.epoch).permutation(len(self.train))
        yield from (order[i : i + BATCH].tolist() for i in range(0, len(order), BATCH))

    def loader(self) -> DataLoader[Any]:
        """Load and pad them in this process, as a data loader does unless told otherwise."""

        def pad(rows: list[int]) -> dict[str, Any]:
            batch = collate(self.train, np.array(rows), device=torch.device("cpu"))
            return {**batch.inputs, "labels": torch.tensor(rows) if self.numbered else batch.gold}

        # The peers move batches to their device themselves.
        return DataLoader(range(len(self.train)), batch_sampler=self, collate_fn=pad)  # type: ignore[arg-type]


def adamw(student: Model) -> torch.optim.AdamW:
    """Give the peers' optimizer, made as headstart makes its own: no table is decayed."""
    optimizer = optimizer_for(student, Train.model_validate({}))
    set_rate(optimizer, RATE)
    return optimizer


def textbrewer(
    text: Text, teacher: Model, student: Model, *, tokens: int | None
) -> dict[str, float]:
    """Run TextBrewer's general distiller on logits."""
    with tempfile.TemporaryDirectory() as folder:
        distiller = GeneralDistiller(
            TrainingConfig(device=str(student.device), output_dir=folder, log_dir=None,
                           ckpt_frequency=0, ckpt_epoch_frequency=EPOCHS + 1),
            DistillationConfig(temperature=1, kd_loss_type="mse", hard_label_weight=0),
            teacher, student, lambda _, out: {"logits": out.logits},
            lambda _, out: {"logits": out.logits},
        )  # fmt: skip
        start = time.perf_counter()
        with distiller:
            distiller.train(
                adamw(student), Batches(text, tokens).loader(), num_epochs=EPOCHS,
                callback=None, max_grad_norm=1.0,
            )  # fmt: skip
        spent = time.perf_counter() - start
    return {"whole": spent, "teacher": 0.0, "loop": spent}


class Asking(Trainer):
    """A trainer whose loss asks the teacher at every step."""

    teacher: Any
    batches: Batches
    kept: torch.Tensor | None = None  # the teacher's answers, by row

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Give the batches."""
        return self.batches.loader()

    def compute_loss(
        self, model: Model, inputs: dict[str, torch.Tensor], *_: object, **__: object
    ) -> torch.Tensor:
        """Compare logits."""
        labels = inputs.pop("labels")
        with torch.no_grad():
            wanted = self.teacher(**inputs).logits if self.kept is None else self.kept[labels]
        return (model(**inputs).logits - wanted).pow(2).sum(-1).mean()


def trainer(
    text: Text, teacher: Model, student: Model, *, tokens: int | None, bf16: bool = False,
    keeps: bool = False,
) -> dict[str, float]:  # fmt: skip
    """Run a transformers Trainer; where it keeps them, the teacher's answers are asked for once."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, use_cpu=student.device.type == "cpu", bf16=bf16, num_train_epochs=EPOCHS,
            save_strategy="no", report_to=[], logging_strategy="no", disable_tqdm=True,
            log_level="error", max_grad_norm=1.0,
        )  # fmt: skip
        asking = Asking(student, arguments, optimizers=(adamw(student), None))
        asking.teacher, asking.batches = teacher, Batches(text, tokens, numbered=keeps)
        start = time.perf_counter()
        if keeps:
            asking.kept = answers(text, teacher, tokens)
        asked = time.perf_counter() - start
        asking.train()
        spent = time.perf_counter() - start
    return {"whole": spent, "teacher": asked, "loop": spent - asked}


def answers(text: Text, teacher: Model, tokens: int | None) -> torch.Tensor:
    """Ask the teacher once for all rows: (rows, labels)."""
    batches = Batches(text, tokens, numbered=True)
    kept = torch.empty(len(batches.train), LABELS, device=teacher.device)
    with torch.inference_mode():
        for batch in batches.loader():
            rows = batch.pop("labels")
            there = {name: tensor.to(teacher.device) for name, tensor in batch.items()}
            kept[rows] = teacher(**there).logits
    return kept


def products(device: str = "cpu", *, bf16: bool = False) -> float:
    """Measure bare products of matrices, in operations per second."""
    size, kind = 1024 if device == "cpu" else 8192, torch.bfloat16 if bf16 else torch.float32
    a, b = (torch.randn(size, size, dtype=kind, device=device) for _ in range(2))
    times: list[float] = []
    for _ in range(30):
        start = time.perf_counter()
        wait(torch.mm(a, b))
        times.append(time.perf_counter() - start)
    return 2 * size**3 / (min(times) if device == "cpu" else sorted(times)[15])


def wait(tensor: torch.Tensor) -> None:
    """Wait until a device is done."""
    tensor[0, :1].tolist()


def main() -> None:
    """Run all sides in turn, and print seconds and ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pieces", type=int, default=50_000)
    parser.add_argument("--rows", type=int, default=40)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tokenizer")
    parser.add_argument("--massive")
    parser.add_argument("--only", nargs="*", help="sides, besides headstart")
    given = parser.parse_args()
    torch.set_num_threads(given.threads or torch.get_num_threads())
    text = texts(given.rows, given.tokenizer, given.massive)
    train = text.splits["train"]
    tokens = round(BATCH * float(train.lengths.mean()))
    sides = {
        "headstart": partial(ours, embeddings="rows", tokens=tokens, dropout="auto"),
        "headstart, 1,024 pieces": partial(ours, embeddings="rows", tokens=1024, dropout="auto"),
        "headstart, a second arm": partial(
            ours, embeddings="rows", tokens=tokens, dropout="auto", is_second=True
        ),
        "headstart, with dropout": partial(ours, embeddings="rows", tokens=tokens, dropout="kept"),
        "the same, whole table": partial(ours, embeddings="train", tokens=tokens, dropout="kept"),
        "TextBrewer": partial(textbrewer, tokens=None),
        "TextBrewer, our batches": partial(textbrewer, tokens=tokens),
        "Trainer": partial(trainer, tokens=None),
        "Trainer, our batches": partial(trainer, tokens=tokens),
        "Trainer, answers kept": partial(trainer, tokens=None, keeps=True),
        "the same, our batches": partial(trainer, tokens=tokens, keeps=True),
    }
    on_card = given.device != "cpu"
    rates = {False: products(given.device, bf16=on_card)}
    if on_card or has_fast_bf16("cpu"):
        rates[True] = rates[False] if on_card else products(given.device, bf16=True)
        fast = partial(ours, embeddings="rows", dropout="auto", precision="bf16")
        sides |= {
            "bf16: headstart, 1,024": partial(fast, tokens=1024),
            "bf16: headstart, 8,192" if on_card else "bf16: headstart": partial(
                fast, tokens=8192 if on_card else tokens
            ),
            "bf16: dropout, whole table": partial(
                ours, embeddings="train", tokens=tokens, dropout="kept", precision="bf16"
            ),
            "bf16: Trainer": partial(trainer, tokens=None, bf16=True),
            "bf16: Trainer, our batches": partial(trainer, tokens=tokens, bf16=True),
        }
    if unknown := [name for name in given.only or () if name not in sides]:
        parser.error(f"--only {unknown[0]!r}: choose from {', '.join(sides)}")
    sides = {name: sides[name] for name in ("headstart", *(given.only or [*sides][1:]))}
    teacher, student = (model.to(given.device) for model in models(given.pieces))
    ours(text, teacher, copy.deepcopy(student), embeddings="rows", tokens=tokens, dropout="auto")
    inner = sum(p.numel() for p in student.bert.encoder.parameters() if p.dim() > 1)
    each = 6 * EPOCHS * int(train.lengths.sum())
    work = each * inner
    size = student.config
    brief = each * size.hidden_size * (size.hidden_size + 2 * size.intermediate_size)
    print(
        f"{len(train)} texts, {train.lengths.sum():,} pieces, {EPOCHS} epochs; a table of "
        f"{given.pieces:,}; {torch.get_num_threads()} threads, {given.device}, "
        f"{' and in bf16 '.join(f'{rate / 1e9:,.0f}' for rate in rates.values())} GFLOP/s"
    )
    print(f"{'limit (student alone)':<26}{work / rates[False]:7.1f} s")
    found: dict[str, dict[str, float]] = {}
    for name, side in sides.items():
        teacher.eval()
        in_bf16 = on_card or name.startswith("bf16")
        before = products(given.device, bf16=in_bf16)
        found[name] = side(text, teacher, copy.deepcopy(student))
        rate = (before + products(given.device, bf16=in_bf16)) / 2
        told, first = found[name], found["headstart"]
        speed = each / 6 / told["loop"]
        made = work - brief if side.func is ours else work
        print(f"{name:<26}{told['whole']:7.1f} s, of it teacher pass {told['teacher']:5.1f}; "
              f"{speed:6,.0f} pieces/s, {made / rate / told['loop']:4.0%} of the limit; "
              f"{told['whole'] / first['whole']:5.2f} x headstart", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
