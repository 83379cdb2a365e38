"""The commands: they parse, call and print; everything else is done elsewhere.

Heavy imports stay inside the commands, so that `--help` and `predict` start at once.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn, TextIO

import typer

from themewire import __version__
from themewire.errors import (
    InputRefused,
    ThemewireError,
    UsageError,
    missing_extra,
)
from themewire.files import draft_of
from themewire.terminal import (
    TableWriter,
    console_on,
    one_of,
    output_to,
    print_check,
    print_comparison,
    print_curve,
    print_figures,
    print_lines,
    print_suspects,
    print_themes,
    print_training,
    printable,
    table_on,
)

INTERRUPTED = 130
UNEXPECTED = 3
DEFAULT_CONFIG = Path("configs/default.toml")
FORMATS = ("table", "jsonl", "csv", "parquet")

app = typer.Typer(
    name="themewire",
    help="Tags news stories by theme and shows the sentence that earned each tag.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ConfigArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="CONFIG", help="A TOML file; default: configs/default.toml.", show_default=False
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Overrides the file; may be repeated."),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="CONFIG", help="Names the themes; default: configs/default.toml."
    ),
]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", metavar="FILE", help="Where to write; default: standard output."),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="M",
        help="A bundle's folder or archive, models:/NAME@ALIAS, models:/NAME/VERSION or runs:/ID/model. "
        "Default: $THEMEWIRE_MODEL, else models/champion.",
    ),
]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"themewire {__version__} (Python {sys.version.split()[0]})")
        raise typer.Exit


@app.callback()
def _main(
    verbose: Annotated[
        int, typer.Option("--verbose", "-v", count=True, help="Say more on standard error.")
    ] = 0,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    level = logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("themewire").setLevel(level)


def _load_config(path: Path | None, settings: list[str] | None) -> Any:
    from themewire.config import load_config

    if path is None and DEFAULT_CONFIG.exists():
        path = DEFAULT_CONFIG
    return load_config(path, settings or [])


@contextmanager
def _train_extra() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise missing_extra("train", error) from error


@app.command()
def train(config: ConfigArgument = None, settings: SetOption = None) -> None:
    """Train a tagger, keep the experiment in MLflow, and promote the model if it is better.

    Example: themewire train configs/linear.toml --set tagger.c=3
    """
    resolved = _load_config(config, settings)
    with _train_extra():
        from themewire.checks import check_corpus
        from themewire.training import train as run_training
    checked = check_corpus(resolved)
    print_lines(checked.errors)
    result = run_training(resolved, checked)
    print_training(result)


@app.command()
def sweep(
    config: ConfigArgument = None,
    settings: SetOption = None,
    trials: Annotated[
        int, typer.Option(min=1, help="Finished trials to reach, those of earlier sweeps included.")
    ] = 30,
    output: OutputOption = None,
) -> None:
    """Search a family's settings by cross-validation; the best ones become a configuration file.

    Stopped and started again, it goes on from the trials in sweeps.db.

    Example: themewire sweep configs/encoder.toml --trials 50 --output configs/encoder-best.toml
    """
    resolved = _load_config(config, settings)
    with _train_extra():
        from themewire.sweep import sweep as run_sweep
    result = run_sweep(resolved, trials)
    with output_to(output) as stream:
        stream.write(result.toml)
    print_lines([f"{result.trials} trials; best macro-F1 {result.macro_f1:.4f}, cross-validated"])


@app.command()
def check(config: ConfigArgument = None, settings: SetOption = None) -> None:
    """Look the corpus over: bad records, duplicates, leaks, repeated phrases; what it is made of.

    Exit code 1 where a training would refuse to start.
    """
    resolved = _load_config(config, settings)
    with _train_extra():
        from themewire.checks import check_corpus
    result = check_corpus(resolved)
    print_check(result)
    result.require_sound()


@app.command()
def evaluate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Labelled articles, JSONL.")],
    model: ModelOption = None,
    output_format: Annotated[
        str, typer.Option("--format", metavar="table|json", help="How to print the figures.")
    ] = "table",
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="FILE",
            help="Write a page with curves, slices and every error there.",
        ),
    ] = None,
) -> None:
    """Measure a model on a labelled file: the figures a training gives, with evidence hit@1 and hit@3.

    Example: themewire evaluate labelled.jsonl --report report.html
    """
    one_of("--format", output_format, ("table", "json"))
    from themewire.predict import load_predictor

    with _train_extra():
        from themewire.evaluation import measure_bundle
    predictor = load_predictor(model)
    reading = _labelled([str(file)], predictor.bundle.taxonomy)
    measured = measure_bundle(
        predictor.bundle, reading.articles, predictor.bundle.config.split.seed
    )
    if report is not None:
        from themewire.page import report_page

        page = report_page(measured, predictor.bundle.decision, f"{file.name}", predictor.name)
        with output_to(report) as stream:
            stream.write(page)
    if output_format == "json":
        print(json.dumps(measured.figures.flat(), indent=1))
    else:
        console = console_on(sys.stdout)
        print_figures(console, {str(file): measured.figures})
        print_themes(console, measured.figures)
    if reading.faults:
        raise typer.Exit(InputRefused.exit_code)


@app.command()
def predict(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT...",
            help="Stories as text, Markdown or HTML (one a file); .jsonl, .csv and .parquet tables; folders, "
            "patterns, http(s) addresses; .gz, .bz2 and .xz of these; - for standard input.",
            show_default=False,
        ),
    ] = None,
    model: ModelOption = None,
    output_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="table|jsonl|csv|parquet",
            help="Default: what --output's name says; else table on a terminal, jsonl elsewhere.",
        ),
    ] = None,
    output: OutputOption = None,
    rejects: Annotated[
        Path | None,
        typer.Option(
            "--rejects", metavar="FILE", help="Where refused input is listed; else standard error."
        ),
    ] = None,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="Standard input holds a record a line.")
    ] = False,
    id_column: Annotated[str, typer.Option("--id", help="Column of the id.")] = "id",
    title: Annotated[str, typer.Option(help="Column of the title.")] = "title",
    text: Annotated[str, typer.Option(help="Column of the text.")] = "text",
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="Fetch addresses in private networks too.")
    ] = False,
) -> None:
    """Tag stories, and show for each tag the sentence that earned it.

    Examples: themewire predict story.txt | cat wire.jsonl | themewire predict --format jsonl
    themewire predict archive/ --output tags.parquet --rejects rejects.txt
    """
    chosen = output_format or _format_of(output)
    one_of("--format", chosen, FORMATS)
    if chosen == "parquet" and output is None:
        raise UsageError("--format parquet: name a file with --output")
    from themewire.inputs import Reader
    from themewire.predict import load_predictor, predict_stream

    columns = {"id": id_column, "title": title, "text": text}
    names = {key: name for key, name in columns.items() if key != name}
    predictor = load_predictor(model)
    reader = Reader(jsonl=jsonl, allow_private=allow_private, names=names)
    found = predict_stream(predictor, reader.read(inputs or ["-"], sys.stdin.buffer))
    with _rejects_to(rejects) as reject:
        if chosen == "parquet" and output is not None:
            from themewire.outputs import ParquetWriter

            with draft_of(output) as draft, ParquetWriter(draft, predictor.themes) as rows:
                done, refused = _write_all(found, rows, reject)
        else:
            from themewire.outputs import CsvWriter, JsonlWriter

            writers = {"table": TableWriter, "jsonl": JsonlWriter, "csv": CsvWriter}
            with output_to(output) as stream:
                done, refused = _write_all(found, writers[chosen](stream), reject)
    if output is not None or rejects is not None:
        print_lines([f"{done} stories tagged, {refused} refused"])
    if refused:
        raise typer.Exit(InputRefused.exit_code)


def _format_of(output: Path | None) -> str:
    if output is not None:
        suffix = output.suffix.lower().removeprefix(".")
        return suffix if suffix in FORMATS else "jsonl"
    return "table" if sys.stdout.isatty() else "jsonl"


@contextmanager
def _rejects_to(path: Path | None) -> Iterator[Callable[[str], None]]:
    if path is None:
        yield lambda line: print_lines([line])
        return
    with output_to(path) as stream:
        yield lambda line: print(printable(line), file=stream)


def _write_all(found: Iterable[Any], writer: Any, reject: Callable[[str], None]) -> tuple[int, int]:
    """Write results and list what was refused; how many of each."""
    from themewire.articles import Fault

    done = refused = 0
    for item in found:
        if isinstance(item, Fault):
            refused += 1
            reject(str(item))
            continue
        prediction, given = item
        done += 1
        writer.write(prediction, given)
        if given.note:
            print_lines([f"{given.article.id}: {given.note}"])
    return done, refused


@app.command()
def archive(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Files, folders or patterns, also in a storage (s3://…): each file a shard.",
        ),
    ],
    output: Annotated[
        str, typer.Argument(metavar="OUTPUT", help="The folder, likewise, where shards of tags go.")
    ],
    model: ModelOption = None,
    engine: Annotated[str, typer.Option(metavar="local|ray", help="ray: on a cluster.")] = "local",
    workers: Annotated[
        int, typer.Option(min=1, help="Models at work at once, with --engine ray.")
    ] = os.cpu_count() or 1,
    id_column: Annotated[str, typer.Option("--id", help="Column of the id.")] = "id",
    title: Annotated[str, typer.Option(help="Column of the title.")] = "title",
    text: Annotated[str, typer.Option(help="Column of the text.")] = "text",
) -> None:
    """Tag a whole archive, shard by shard; stopped and started again, it goes on where it was.

    Example: themewire archive stories/ tags/ --engine ray
    """
    one_of("--engine", engine, ("local", "ray"))
    from themewire.archive import shards_of, tag_archive
    from themewire.inputs import Reader
    from themewire.predict import default_model

    columns = {"id": id_column, "title": title, "text": text}
    names = {key: name for key, name in columns.items() if key != name}
    reader = Reader(storage=True, names=names)
    total = len(shards_of(inputs, output))
    start, stories, refused, failed, number = time.monotonic(), 0, 0, 0, 0
    for number, done in enumerate(
        tag_archive(inputs, output, model or default_model(), reader, engine, workers), 1
    ):
        stories, refused = stories + done.stories, refused + done.refused
        failed += bool(done.failed)
        seconds = time.monotonic() - start
        print_lines(
            [(f"{number} of {total}: {done.source}: {done.failed or f'{done.stories} stories'}; "
             f"{stories / seconds:.0f} a second, {seconds / number * (total - number):.0f} s left")]
        )  # fmt: skip
    print_lines([f"{stories} stories tagged, {refused} refused, {failed} of {total} shards failed"])
    if refused or failed:
        raise typer.Exit(InputRefused.exit_code)


@app.command("import")
def import_articles(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            help="A .csv or .parquet file, Label Studio's .json export, or a data set folder.",
        ),
    ],
    config: ConfigOption = None,
    id_column: Annotated[str, typer.Option("--id", help="Column of the id.")] = "id",
    title: Annotated[str, typer.Option(help="Column of the title.")] = "title",
    text: Annotated[str, typer.Option(help="Column of the text.")] = "text",
    themes: Annotated[
        str, typer.Option(help="Column of the themes; without one, a column for each theme.")
    ] = "themes",
    output: OutputOption = None,
) -> None:
    """Turn labelled articles of other tools into the records a training reads.

    Example: themewire import stories.csv --text body --output data/articles/stories.jsonl
    """
    resolved = _load_config(config, None)
    with _train_extra():
        from themewire.exchange import Columns, good_articles
    from themewire.articles import Fault

    taxonomy = resolved.load_taxonomy()
    refused = done = 0
    with output_to(output) as stream:
        for item in good_articles(source, Columns(id_column, title, text, themes), taxonomy):
            if isinstance(item, Fault):
                refused += 1
                print_lines([str(item)])
            else:
                done += 1
                print(item.model_dump_json(exclude_defaults=True), file=stream)
    print_lines([f"{done} articles imported, {refused} faults"])
    if refused:
        raise typer.Exit(InputRefused.exit_code)


@app.command("export")
def export_articles(
    files: Annotated[
        list[str],
        typer.Argument(metavar="INPUT...", help="Labelled articles: .jsonl files or folders."),
    ],
    config: ConfigOption = None,
    output: OutputOption = None,
    interface: Annotated[
        Path | None,
        typer.Option(
            "--interface", metavar="FILE", help="Write the labelling interface (XML) there too."
        ),
    ] = None,
) -> None:
    """Turn labelled articles into Label Studio tasks, labels and evidence included.

    Example: themewire export data/articles --output tasks.json --interface interface.xml
    """
    resolved = _load_config(config, None)
    from themewire.articles import read_articles
    from themewire.exchange import labelling_interface, write_tasks

    taxonomy = resolved.load_taxonomy()
    reading = read_articles(files, taxonomy)
    print_lines(map(str, reading.faults))
    with output_to(output) as stream:
        print(write_tasks(reading.articles, taxonomy), file=stream)
    if interface is not None:
        with output_to(interface) as stream:
            stream.write(labelling_interface(taxonomy))
    if reading.faults:
        raise typer.Exit(InputRefused.exit_code)


def _labelled(files: list[str], taxonomy: Any) -> Any:
    """Labelled articles, their faults told; at least one good record, or the command ends."""
    from themewire.articles import read_articles

    reading = read_articles(files, taxonomy)
    print_lines(map(str, reading.faults))
    if not reading.articles:
        raise InputRefused(f"{', '.join(files)}: no good records")
    return reading


def _unlabelled(inputs: list[str]) -> list[Any]:
    """Stories to be read whole; what cannot be used is told."""
    from themewire.articles import Fault
    from themewire.inputs import Reader

    found = list(Reader().read(inputs, sys.stdin.buffer))
    print_lines(str(item) for item in found if isinstance(item, Fault))
    articles = [item.article for item in found if not isinstance(item, Fault)]
    if not articles:
        raise InputRefused(f"{', '.join(inputs)}: no stories that can be used")
    return articles


StoriesArgument = Annotated[
    list[str],
    typer.Argument(metavar="STORIES...", help="Stories without labels, as `predict` takes them."),
]


@app.command()
def verify(
    given: Annotated[str, typer.Argument(metavar="BUNDLE", help="A bundle's folder or archive.")],
    digest: Annotated[
        str | None,
        typer.Option("--digest", help="The sha256 it should have, or its first 12 digits."),
    ] = None,
) -> None:
    """Check a bundle against its manifest, and say what is inside; nothing in it is run.

    Example: themewire verify champion.zip --digest 6623a41d857c
    """
    import tempfile

    from themewire.bundle import unpack_bundle
    from themewire.bundle import verify as run_check

    with tempfile.TemporaryDirectory(prefix="themewire-") as scratch:
        folder = Path(given)
        if folder.is_file():
            unpack_bundle(folder, Path(scratch))
            folder = Path(scratch)
        manifest, found = run_check(folder)
    if digest is not None and not (len(digest) >= 12 and found.startswith(digest.lower())):
        raise UsageError(f"{given}: its digest is {found}, not {digest}")
    print(f"{given}: sound; {manifest.tagger}, made by {manifest.created_by}, sha256 {found}")
    for entry in manifest.files:
        print(f"  {entry.path}  {entry.size:,} bytes  sha256 {entry.sha256[:12]}…")


@app.command()
def pack(
    output: Annotated[Path, typer.Option("--output", metavar="FILE", help="The archive, a .zip.")],
    model: ModelOption = None,
) -> None:
    """Write a model as one archive file, which --model takes on any machine.

    Example: themewire pack --output champion.zip
    """
    from themewire.bundle import pack_bundle
    from themewire.predict import load_predictor

    predictor = load_predictor(model)
    with draft_of(output) as draft:
        digest = pack_bundle(predictor.bundle.folder, draft)
    size = output.stat().st_size / 1e6
    print(f"{output}: {predictor.name}, {size:.1f} MB, sha256 of its manifest {digest}")


@app.command()
def decide(
    output: Annotated[
        Path, typer.Option("--output", metavar="FOLDER", help="Where the bundle is put.")
    ],
    model: ModelOption = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option("--threshold", metavar="THEME=P", help="A theme's cut; may be repeated."),
    ] = None,
    band: Annotated[
        float | None, typer.Option(min=0, max=1, help="Probabilities this near a cut are reviewed.")
    ] = None,
    recall: Annotated[
        float | None,
        typer.Option(
            min=0, max=0.999, help="What tags and review together are to find; 0: no promise."
        ),
    ] = None,
    confidence: Annotated[
        float | None, typer.Option(min=0.5, max=0.999, help="That the recall is kept.")
    ] = None,
    cascade: Annotated[
        bool | None,
        typer.Option(help="Whether a stack's encoder skips sentences that words alone rule out."),
    ] = None,
    adapt: Annotated[
        list[str] | None,
        typer.Option(
            "--adapt",
            metavar="STORIES",
            help="Unlabelled stories whose theme shares count instead.",
        ),
    ] = None,
) -> None:
    """Take a trained model's decision anew, without a training.

    Examples: themewire decide --recall 0.98 --output models/careful
    themewire decide --adapt wire.jsonl --output models/wire
    """
    import numpy as np

    from themewire.bundle import write_decision
    from themewire.decisions import adapted, guarded, with_threshold
    from themewire.predict import load_predictor
    from themewire.text import Story

    bundle = load_predictor(model).bundle
    decision, review = bundle.decision, bundle.config.review
    if band is not None:
        decision = decision.model_copy(update={"band": band})
    if recall is not None or confidence is not None:
        held_out, old = bundle.held_out(), decision.guarantee
        if recall is None:
            recall = old.recall if old else review.recall
        if confidence is None:
            confidence = old.confidence if old else review.confidence
        with _train_extra():
            decision = guarded(decision, held_out.scores, held_out.labels, recall, confidence)
        if recall and decision.guarantee is None:
            raise UsageError(
                f"--recall {recall}: no cut keeps it on the articles that were held out"
            )
    if adapt:
        articles = _unlabelled(adapt)
        size = bundle.config.predict.batch
        scores = np.concatenate(
            [
                bundle.tagger.scan([Story(a) for a in articles[start : start + size]]).scores
                for start in range(0, len(articles), size)
            ]
        )
        decision = adapted(decision, scores)
    for setting in threshold or ():
        decision = with_threshold(decision, *_theme_and_cut(setting, bundle.taxonomy.names))
    config = bundle.config
    if cascade is not None:
        if cascade and getattr(bundle.tagger, "gate", None) is None:
            raise UsageError(
                "--cascade: this model has not learned which sentences it may rule out"
            )
        predict = config.predict.model_copy(update={"cascade": cascade})
        config = config.model_copy(update={"predict": predict})
    digest = write_decision(bundle, decision, output, config)
    table = table_on("theme", "threshold before", "after", "possible from", "log-odds shift")
    for before, after in zip(bundle.decision.themes, decision.themes, strict=True):
        table.add_row(
            after.theme, f"{before.threshold:.3f}", f"{after.threshold:.3f}",
            "–" if after.possible > 1 else f"{after.possible:.3f}", f"{after.shift:+.2f}",
        )  # fmt: skip
    console = console_on(sys.stdout)
    console.print(table)
    console.print(f"bundle   {output} (sha256 {digest[:12]}…)", soft_wrap=True)


def _theme_and_cut(setting: str, names: Sequence[str]) -> tuple[str, float]:
    name, _, value = setting.partition("=")
    if name not in names:
        raise UsageError(f"--threshold {name}: no such theme; there are {', '.join(names[:8])}")
    try:
        threshold = float(value)
    except ValueError:
        threshold = -1.0
    if not 0 <= threshold <= 1:
        raise UsageError(f"--threshold {setting}: write a probability from 0 to 1")
    return name, threshold


@app.command()
def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="A model, as --model takes it.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    on: Annotated[
        list[str] | None,
        typer.Option("--on", metavar="FILE", help="Labelled articles; default: the test articles."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Two models side by side on labelled articles, and the stories on which they differ.

    Example: themewire compare models:/themewire@champion models:/themewire@challenger
    """
    from themewire.predict import load_predictor

    with _train_extra():
        from themewire.lifecycle import compare as run_comparison
    one, other = load_predictor(first), load_predictor(second)
    resolved = _load_config(config, None)
    reading = _labelled(on or list(resolved.data.test), one.bundle.taxonomy)
    found = run_comparison(one, other, reading.articles, resolved.split.seed)
    print_comparison(found, [one.name, other.name])


@app.command()
def promote(
    version: Annotated[str, typer.Argument(metavar="VERSION", help="Its number in the registry.")],
    config: ConfigOption = None,
) -> None:
    """Make a registered version the champion by hand: the alias and models/champion move together.

    Example: themewire promote 3
    """
    resolved = _load_config(config, None)
    name, target = _registered(resolved)
    with _train_extra():
        from themewire.lifecycle import promote as run_promotion
    found = run_promotion(name, version.rpartition("/")[2], target)
    print(f"champion {found}" + (f", in {target}" if target else ""))


@app.command()
def rollback(config: ConfigOption = None) -> None:
    """Make the champion before this one the champion again, in the registry and in models/champion."""
    resolved = _load_config(config, None)
    name, target = _registered(resolved)
    with _train_extra():
        from themewire.lifecycle import rollback as run_rollback
    found = run_rollback(name, target)
    print(f"champion {found}" + (f", in {target}" if target else ""))


def _registered(config: Any) -> tuple[str, Path | None]:
    """The registered model's name, and the folder its champion lies in."""
    if not config.tracking.registered_model:
        raise UsageError("tracking.registered_model: empty; nothing is registered")
    champion = config.output.champion
    return config.tracking.registered_model, Path(champion) if champion else None


@app.command("log")
def log_bundle(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A bundle that was kept.")],
) -> None:
    """Log a model whose training lost its tracking store: run, test figures, version, gate.

    Example: themewire log models/unlogged/linear
    """
    with _train_extra():
        from themewire.training import log_later
    run_id, version, verdict, champion = log_later(folder)
    if version is not None and verdict is not None:
        print(f"model    {version}: {verdict.reason}")
    if champion is not None:
        print(f"bundle   {champion} (what `themewire predict` uses)")
    print(f"run      {run_id}")


@app.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Delete failed, killed and deleted runs with their files; never one of a registered version."""
    with _train_extra():
        from themewire.tracking import delete_runs, unneeded_runs
    found = unneeded_runs()
    for run_id, name in found.items():
        print(f"{run_id} {name}")
    if found and not dry_run:
        delete_runs(list(found))
    print_lines([f"{len(found)} runs {'would be ' if dry_run else ''}deleted"])


@app.command()
def audit(
    config: ConfigArgument = None,
    settings: SetOption = None,
    top: Annotated[int, typer.Option(min=1, help="Labels shown.")] = 30,
    output_format: Annotated[
        str, typer.Option("--format", metavar="table|tasks", help="tasks: for Label Studio.")
    ] = "table",
    output: OutputOption = None,
) -> None:
    """Which labels look wrong, most suspicious first, with the sentence that speaks against each.

    Trains by cross-validation; changes nothing. Example: themewire audit configs/linear.toml --top 50
    """
    one_of("--format", output_format, ("table", "tasks"))
    resolved = _load_config(config, settings)
    with _train_extra():
        from themewire.audit import audit as run_audit
        from themewire.checks import check_corpus
    checked = check_corpus(resolved)
    print_lines(checked.errors)
    checked.require_sound()
    suspects = run_audit(resolved, checked)[:top]
    with output_to(output) as stream:
        if output_format == "tasks":
            from themewire.exchange import audit_tasks

            print(audit_tasks(suspects, checked.corpus.taxonomy), file=stream)
        else:
            print_suspects(stream, suspects)


@app.command()
def suggest(
    inputs: StoriesArgument,
    model: ModelOption = None,
    top: Annotated[int, typer.Option(min=1, help="Stories to label.")] = 50,
    output: OutputOption = None,
) -> None:
    """Which unlabelled stories would teach the most: Label Studio tasks, the model's tags filled in.

    Example: themewire suggest wire.jsonl --top 100 --output tasks.json
    """
    from themewire.predict import load_predictor

    with _train_extra():
        from themewire.exchange import prefilled_tasks
        from themewire.suggest import suggest as run_suggestion
    import numpy as np

    predictor = load_predictor(model)
    articles = _unlabelled(inputs)
    found = predictor.predict(articles)
    probabilities = np.array([list(each.probabilities.values()) for each in found])
    picks = run_suggestion(articles, probabilities, predictor.bundle.decision, top)
    pairs = [(articles[pick.place], found[pick.place]) for pick in picks]
    with output_to(output) as stream:
        print(prefilled_tasks(pairs, predictor.bundle.taxonomy), file=stream)
    print_lines([f"{len(picks)} of {len(articles)} stories"])


@app.command()
def drift(
    inputs: StoriesArgument,
    model: ModelOption = None,
    level: Annotated[
        float, typer.Option(min=0, max=1, help="Distance from which the exit code is 1.")
    ] = 0.3,
) -> None:
    """Do stories still look like those the model was taught by: probabilities, words, lengths, language.

    Example: themewire drift wire.jsonl --level 0.2
    """
    from themewire.predict import load_predictor

    with _train_extra():
        from themewire.drift import drift as run_drift
    predictor = load_predictor(model)
    rows = run_drift(predictor.bundle, _unlabelled(inputs))
    table = table_on("", "taught by", "now", "distance", "by chance")
    for row in rows:
        mark = "  drifted" if row.beyond(level) else ""
        table.add_row(
            row.what, f"{row.taught:.3g}", f"{row.now:.3g}", f"{row.distance:.2f}",
            f"{row.chance:.3f}{mark}",
        )  # fmt: skip
    console_on(sys.stdout).print(table)
    beyond = [row.what for row in rows if row.beyond(level)]
    if beyond:
        raise InputRefused(f"drifted beyond {level:g}: {', '.join(beyond)}")


@app.command()
def curve(
    config: ConfigArgument = None,
    settings: SetOption = None,
    on: Annotated[
        list[str] | None,
        typer.Option("--on", metavar="FILE", help="Labelled articles to measure on as well."),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", metavar="FILE", help="Draw it there (.png or .svg).")
    ] = None,
) -> None:
    """The learning curve: what an eighth, a quarter, a half and all of the articles teach.

    Example: themewire curve configs/linear.toml --on data/test --picture curve.png
    """
    resolved = _load_config(config, settings)
    with _train_extra():
        from themewire.checks import check_corpus
        from themewire.curve import curve_picture, learning_curve
    checked = check_corpus(resolved)
    print_lines(checked.errors)
    checked.require_sound()
    other = _labelled(on, checked.corpus.taxonomy).articles if on else []
    points = []
    for point in learning_curve(resolved, checked, other):
        print_lines([f"{point.articles} articles: macro-F1 {point.cv.macro_f1:.3f}"])
        points.append(point)
    print_curve(points)
    if picture is not None:
        try:
            curve_picture(points).savefig(picture)
        except (OSError, ValueError) as error:
            raise UsageError(f"{picture}: cannot be drawn: {error}") from error


def _stop(error: BaseException, code: int) -> NoReturn:
    print_lines([str(error)])
    sys.exit(code)


class _Stdout(io.TextIOWrapper):
    """Standard output that ends the program, successfully, when its reader has gone."""

    @classmethod
    def over(cls, stream: TextIO) -> _Stdout:
        # halves of surrogate pairs have no UTF-8; in JSON the escape stands for the same
        return cls(
            stream.buffer,
            encoding="utf-8",
            errors="backslashreplace",
            line_buffering=stream.isatty(),
        )

    def write(self, text: str) -> int:
        with self._reader_may_leave():
            return super().write(text)

    def flush(self) -> None:
        with self._reader_may_leave():
            super().flush()

    @contextmanager
    def _reader_may_leave(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            # what is still held back must not be flushed into the closed pipe at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            raise SystemExit(0) from None


def main() -> NoReturn:
    """Run a command; every error ends in one line and the contract's exit code."""
    sys.stdout = _Stdout.over(sys.stdout)
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except ThemewireError as error:
        _stop(error, error.exit_code)
    except typer.exceptions.TyperException as error:
        message = getattr(error, "format_message", error.__str__)()
        message = " ".join(message.split())
        _stop(UsageError(f"{message} (see themewire --help)"), UsageError.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(INTERRUPTED)
    except Exception as error:
        if logging.getLogger("themewire").isEnabledFor(logging.DEBUG):
            raise
        _stop(
            RuntimeError(f"unexpected {type(error).__name__}: {error}; -v shows where"), UNEXPECTED
        )
    sys.exit(code if isinstance(code, int) else 0)
