"""The commands: they parse, call and print; everything else is done elsewhere.

Heavy imports stay inside the commands, so that `--help` and `predict` start at once.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TextIO

import typer

from themewire import __version__
from themewire.errors import (
    InputRefused,
    OutsideError,
    ThemewireError,
    UsageError,
    missing_extra,
)

if TYPE_CHECKING:
    from rich.console import Console

    from themewire.checks import CheckResult
    from themewire.metrics import Figures
    from themewire.predict import Prediction
    from themewire.training import TrainResult

INTERRUPTED = 130
UNEXPECTED = 3
DEFAULT_CONFIG = Path("configs/default.toml")
FORMATS = ("table", "jsonl")

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
        help="A bundle's folder, models:/NAME@ALIAS, models:/NAME/VERSION or runs:/ID/model. "
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


def _console(stream: TextIO) -> Console:
    from rich.console import Console

    return Console(file=stream, highlight=False, soft_wrap=False)


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
    _print_lines(checked.errors)
    result = run_training(resolved, checked)
    _print_training(result)


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
    with _output(output) as stream:
        stream.write(result.toml)
    _print_lines([f"{result.trials} trials; best macro-F1 {result.macro_f1:.4f}, cross-validated"])


@app.command()
def check(config: ConfigArgument = None, settings: SetOption = None) -> None:
    """Look the corpus over: bad records, duplicates, leaks, repeated phrases; what it is made of.

    Exit code 1 where a training would refuse to start.
    """
    resolved = _load_config(config, settings)
    with _train_extra():
        from themewire.checks import check_corpus
    result = check_corpus(resolved)
    _print_check(result)
    result.require_sound()


@app.command()
def evaluate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Labelled articles, JSONL.")],
    model: ModelOption = None,
    output_format: Annotated[
        str, typer.Option("--format", metavar="table|json", help="How to print the figures.")
    ] = "table",
) -> None:
    """Measure a model on a labelled file: the figures a training gives, with evidence hit@1 and hit@3."""
    _one_of("--format", output_format, ("table", "json"))
    from themewire.articles import read_articles
    from themewire.predict import load_predictor

    with _train_extra():
        from themewire.evaluation import measure_bundle
    predictor = load_predictor(model)
    reading = read_articles([file], predictor.bundle.taxonomy)
    _print_lines(map(str, reading.faults))
    if not reading.articles:
        raise InputRefused(f"{file}: no good records to measure on")
    measured = measure_bundle(
        predictor.bundle, reading.articles, predictor.bundle.config.split.seed
    )
    if output_format == "json":
        print(json.dumps(measured.figures.flat(), indent=1))
    else:
        console = _console(sys.stdout)
        _print_figures(console, {str(file): measured.figures})
        _print_themes(console, measured.figures)
    if reading.faults:
        raise typer.Exit(InputRefused.exit_code)


@app.command()
def predict(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT...",
            help="Text files (a story each), .jsonl files (a record a line), or - for standard input.",
            show_default=False,
        ),
    ] = None,
    model: ModelOption = None,
    output_format: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="table|jsonl", help="Default: table on a terminal, else jsonl."
        ),
    ] = None,
    output: OutputOption = None,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="Standard input holds a record a line.")
    ] = False,
) -> None:
    """Tag stories, and show for each tag the sentence that earned it.

    Examples: themewire predict story.txt | cat wire.jsonl | themewire predict --format jsonl
    """
    to_terminal = output is None and sys.stdout.isatty()
    chosen = output_format or ("table" if to_terminal else "jsonl")
    _one_of("--format", chosen, FORMATS)
    from themewire.articles import Fault
    from themewire.predict import load_predictor, predict_stream, read_stories

    predictor = load_predictor(model)
    stories = read_stories(inputs or ["-"], sys.stdin.buffer, jsonl=jsonl)
    refused = 0
    with _output(output) as stream:
        writer = _TableWriter(stream) if chosen == "table" else _JsonlWriter(stream)
        for item in predict_stream(predictor, stories):
            if isinstance(item, Fault):
                refused += 1
                _print_lines([str(item)])
            else:
                writer.write(item)
    if refused:
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
    with _output(output) as stream:
        for item in good_articles(source, Columns(id_column, title, text, themes), taxonomy):
            if isinstance(item, Fault):
                refused += 1
                _print_lines([str(item)])
            else:
                done += 1
                print(item.model_dump_json(exclude_defaults=True), file=stream)
    _print_lines([f"{done} articles imported, {refused} faults"])
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
    _print_lines(map(str, reading.faults))
    with _output(output) as stream:
        print(write_tasks(reading.articles, taxonomy), file=stream)
    if interface is not None:
        with _output(interface) as stream:
            stream.write(labelling_interface(taxonomy))
    if reading.faults:
        raise typer.Exit(InputRefused.exit_code)


@contextmanager
def _output(path: Path | None) -> Iterator[TextIO]:
    """Standard output, or a file that gets its name only once it is whole."""
    if path is None:
        yield sys.stdout
        sys.stdout.flush()
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("w", encoding="utf-8", errors="backslashreplace") as stream:
            yield stream
        draft.replace(path)
    except OSError as error:
        # a place that cannot be written to is the user's to change, a full disk is not
        wrong_place = isinstance(
            error,
            FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError,
        )
        kind = UsageError if wrong_place else OutsideError
        raise kind(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            draft.unlink()


class _JsonlWriter:
    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, found: Prediction) -> None:
        print(json.dumps(found.to_dict(), ensure_ascii=False), file=self.stream)


class _TableWriter:
    """A few lines a story: its id, each tag with its probability, and the best sentence under it."""

    def __init__(self, stream: TextIO) -> None:
        from rich.text import Text

        self.console = _console(stream)
        self.text = Text

    def write(self, found: Prediction) -> None:
        head = self.text(printable(found.id), style="bold")
        if found.review:
            head.append("  review: " + ", ".join(found.review_reasons), style="yellow")
        self.console.print(head)
        if not found.themes:
            name, best = max(found.probabilities.items(), key=lambda item: item[1])
            self.console.print(self.text(f"  no theme (nearest: {name} {best:.2f})", style="dim"))
        for theme in found.themes:
            line = self.text(f"  {theme} ", style="green")
            line.append(f"{found.probabilities[theme]:.2f}")
            self.console.print(line)
            for sentence in found.evidence[theme][:1]:
                where = "title: " if sentence.field == "title" else ""
                quoted = self.text(f"{where}{printable(sentence.text)}", style="italic")
                self.console.print(_indented(quoted))


def _indented(text: Any) -> Any:
    from rich.padding import Padding

    return Padding(text, (0, 2, 0, 6))


def printable(text: str) -> str:
    """Text on one line without control characters, which could steer a terminal."""
    return "".join(c if c.isprintable() else " " for c in " ".join(text.split()))


def _one_of(option: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{option} {value!r}: choose {' or '.join(allowed)}")


def _print_lines(lines: Iterable[str]) -> None:
    """Lines for people, on standard error."""
    for line in lines:
        print(printable(line), file=sys.stderr)


def _print_check(result: CheckResult) -> None:
    from rich.table import Table

    _print_lines(result.errors)
    _print_lines(f"warning: {line}" for line in result.warnings[:30])
    if len(result.warnings) > 30:
        _print_lines([f"warning: and {len(result.warnings) - 30} more"])
    console = _console(sys.stdout)
    corpus = result.corpus
    console.print(
        f"{len(corpus.articles.articles)} articles, {len(corpus.test.articles)} for the test; "
        f"{len(result.errors)} errors, {len(result.warnings)} warnings"
    )
    for part in result.tables:
        table = Table(box=None, padding=(0, 2, 0, 0))
        for position, column in enumerate(part.columns):
            table.add_column(column, justify="right" if position else "left")
        for row in part.rows:
            table.add_row(*row)
        console.print()
        console.print(table)


def _print_figures(console: Console, figures: dict[str, Figures]) -> None:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    for name in figures:
        table.add_column(name, justify="right")
    parts = list(figures.values())

    def row(name: str, values: Iterable[str]) -> None:
        table.add_row(name, *values)

    row("articles", [str(part.articles) for part in parts])
    row("macro-F1", [f"{part.macro_f1:.3f}" for part in parts])
    row("  95 % interval", ["{:.3f}–{:.3f}".format(*part.macro_interval) for part in parts])
    row("micro-F1", [f"{part.micro_f1:.3f}" for part in parts])
    row("  95 % interval", ["{:.3f}–{:.3f}".format(*part.micro_interval) for part in parts])
    row("mean average precision", [_figure(part.mean_average_precision) for part in parts])
    row("exact match", [f"{part.exact_match:.3f}" for part in parts])
    row("LRAP", [_figure(part.lrap) for part in parts])
    row("articles without a tag", [f"{part.without_tag:.1%}" for part in parts])
    if any(part.evidence for part in parts):
        row(
            "evidence hit@1",
            [_figure(part.evidence.hit_at_1 if part.evidence else None) for part in parts],
        )
        row(
            "evidence hit@3",
            [_figure(part.evidence.hit_at_3 if part.evidence else None) for part in parts],
        )
    console.print(table)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _print_themes(console: Console, figures: Figures) -> None:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for position, column in enumerate(
        ("theme", "precision", "recall", "F1", "AP", "articles", "tagged")
    ):
        table.add_column(column, justify="right" if position else "left")
    for theme in figures.themes:
        table.add_row(
            theme.name, f"{theme.precision:.3f}", f"{theme.recall:.3f}", f"{theme.f1:.3f}",
            _figure(theme.average_precision), str(theme.support), str(theme.tagged),
        )  # fmt: skip
    console.print()
    console.print(table)


def _print_training(result: TrainResult) -> None:
    console = _console(sys.stdout)
    figures = {"cross-validation": result.cv.figures}
    if result.test is not None:
        figures["test"] = result.test.figures
    _print_figures(console, figures)
    _print_themes(console, (result.test or result.cv).figures)
    console.print()
    if result.version is not None and result.verdict is not None:
        console.print(f"model    {result.version}: {result.verdict.reason}")
    if result.champion is not None:
        console.print(f"bundle   {result.champion} (what `themewire predict` uses)")
    console.print(f"run      {result.run_id} ({result.run_name}), {result.seconds:.0f} s")
    address = f"http://127.0.0.1:5000/#/experiments/{result.experiment_id}/runs/{result.run_id}"
    console.print(f"see it   make ui, then {address}", soft_wrap=True)


def _stop(error: BaseException, code: int) -> NoReturn:
    _print_lines([str(error)])
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
