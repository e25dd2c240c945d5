"""Sources of labelled text: the named corpora, and what columns, splits and labels are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

    from headstart.recipe import Data

Names = Mapping[str, tuple[str, ...]]
"""What each of our columns may be called in a file; the first name found is taken."""

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "classification": ("text", "label"),
    "tagging": ("tokens", "tags"),
}
"""The columns that hold each task's input and answer."""

SPLITS: Mapping[str, str] = {
    "train": "train", "training": "train",
    "dev": "dev", "validation": "dev", "valid": "dev", "val": "dev",
    "test": "test",
}  # fmt: skip
"""What splits are called, and our name for them."""
SPLIT_NAMES = tuple(dict.fromkeys(SPLITS.values()))


@dataclass(frozen=True, slots=True)
class Raw:
    """Rows of one language and split as their source has them, under our column names."""

    table: pa.Table
    """With one more column, `row`: the row's number in its file, from 1."""
    where: str
    split: str
    classes: tuple[str, ...] = ()
    """Names of labels in the order of their ids, where the source knows one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub:
    """A data set on the hub that loads without a script."""

    name: str
    config: Callable[[str], str] = str
    """From language to configuration."""
    revision: str | None = None
    is_converted: bool = False
    """Parquet in <configuration>/<split>/, as the hub's converter writes it for every set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """How a corpus is laid out."""

    task: str | None = None
    labels: tuple[str, ...] | None = None
    names: Names
    hub: Hub | None = None
    folder: Path | None = None
    """Where it lies, if it comes with the package."""
    has_treebanks: bool = False
    """Files are named <language>_<treebank>."""

    def called(self, ours: str) -> tuple[str, ...]:
        """List the names that one of our columns may have."""
        return self.names.get(ours, (ours,))


@dataclass(frozen=True, slots=True)
class Reading:
    """How to understand a table: whose columns, for which task."""

    source: Source
    task: str

    @property
    def ours(self) -> tuple[str, ...]:
        """Our names of all columns that are read."""
        return (*COLUMNS[self.task], "id", "split", "language")

    @property
    def theirs(self) -> set[str]:
        """All names that these may have."""
        return {name for ours in self.ours for name in self.source.called(ours)}

    def find(self, ours: str, table: pa.Table) -> str | None:
        """Find what a column is called in a table."""
        names = self.source.called(ours)
        return next((name for name in names if name in table.column_names), None)


MASSIVE_INTENTS = (
    "alarm_query", "alarm_remove", "alarm_set", "audio_volume_down", "audio_volume_mute",
    "audio_volume_other", "audio_volume_up", "calendar_query", "calendar_remove",
    "calendar_set", "cooking_query", "cooking_recipe", "datetime_convert", "datetime_query",
    "email_addcontact", "email_query", "email_querycontact", "email_sendemail", "general_greet",
    "general_joke", "general_quirky", "iot_cleaning", "iot_coffee", "iot_hue_lightchange",
    "iot_hue_lightdim", "iot_hue_lightoff", "iot_hue_lighton", "iot_hue_lightup",
    "iot_wemo_off", "iot_wemo_on", "lists_createoradd", "lists_query", "lists_remove",
    "music_dislikeness", "music_likeness", "music_query", "music_settings", "news_query",
    "play_audiobook", "play_game", "play_music", "play_podcasts", "play_radio", "qa_currency",
    "qa_definition", "qa_factoid", "qa_maths", "qa_stock", "recommendation_events",
    "recommendation_locations", "recommendation_movies", "social_post", "social_query",
    "takeaway_order", "takeaway_query", "transport_query", "transport_taxi", "transport_ticket",
    "transport_traffic", "weather_query",
)  # fmt: skip
TSM_CONFIGS: Mapping[str, str] = {
    "ar": "arabic", "de": "german", "en": "english", "es": "spanish",
    "fr": "french", "hi": "hindi", "it": "italian", "pt": "portuguese",
}  # fmt: skip
QUICKSTART_INTENTS = (
    "alarm_set", "audio_volume_mute", "calendar_set", "cooking_recipe", "email_sendemail",
    "general_joke", "iot_hue_lightchange", "lists_createoradd", "news_query", "play_music",
    "transport_taxi", "weather_query",
)  # fmt: skip

CORPORA: Mapping[str, Source] = {
    "massive": Source(
        task="classification",
        labels=MASSIVE_INTENTS,
        names={"text": ("text", "utt"), "label": ("intent",), "split": ("split", "partition")},
        # main holds a loading script, which datasets >= 4 refuses; the hub's converter has
        # written Parquet beside it: <locale>/<split>/0000.parquet, columns id, utt, intent, …
        hub=Hub(name="AmazonScience/massive", revision="refs/convert/parquet", is_converted=True),
    ),
    "tsm": Source(
        task="classification",
        labels=("negative", "neutral", "positive"),
        names={},
        # a script too; converted files are <arabic, english, …>/<split>/0000.parquet
        hub=Hub(
            name="cardiffnlp/tweet_sentiment_multilingual",
            config=lambda language: TSM_CONFIGS.get(language, language),
            revision="refs/convert/parquet",
            is_converted=True,
        ),
    ),
    "uner": Source(
        task="tagging",
        labels=("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"),
        names={"tags": ("tags", "ner_tags"), "id": ("sent_id", "idx", "id")},
        # universalner/universal_ner is a script; this copy is Parquet, and its card lists the
        # same configurations (da_ddt, …) and features (idx, tokens, ner_tags)
        hub=Hub(name="BramVanroy/universal_ner"),
        has_treebanks=True,
    ),
    "quickstart": Source(
        task="classification",
        labels=QUICKSTART_INTENTS,
        names={},
        folder=Path(__file__).parent / "data" / "quickstart",
    ),
}
"""The named corpora; other names are the hub's, or `local`."""


def source_of(data: Data) -> Source:
    """Find how a corpus is laid out: by its name, or by the recipe's columns."""
    if data.corpus in CORPORA:
        return CORPORA[data.corpus]
    names = {ours: (str(theirs),) for ours, theirs in data.columns}
    hub = Hub(name=data.corpus, revision=data.revision) if data.corpus != "local" else None
    return Source(names=names, hub=hub)
