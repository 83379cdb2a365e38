"""What people see: lines and tables."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from themewire.errors import UsageError
from themewire.files import draft_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from themewire.audit import Suspect
    from themewire.checks import CheckResult
    from themewire.curve import CurvePoint
    from themewire.inputs import Given
    from themewire.lifecycle import Comparison
    from themewire.metrics import Figures
    from themewire.predict import Prediction
    from themewire.training import TrainResult


def console_on(stream: TextIO) -> Console:
    """A console that writes to a stream, words as they are."""
    from rich.console import Console

    return Console(file=stream, highlight=False, soft_wrap=False)


@contextmanager
def output_to(path: Path | None) -> Iterator[TextIO]:
    """Standard output, or a file that gets its name only once it is whole."""
    if path is None:
        yield sys.stdout
        sys.stdout.flush()
        return
    with draft_of(path) as draft, draft.open("w", encoding="utf-8", errors="backslashreplace",
                                             newline="") as stream:  # fmt: skip
        yield stream


class TableWriter:
    """A few lines a story: its id, each tag with its probability, and the best sentence under it."""

    def __init__(self, stream: TextIO) -> None:
        from rich.text import Text

        self.console = console_on(stream)
        self.text = Text

    def write(self, found: Prediction, given: Given) -> None:
        """Write one result."""
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


def one_of(option: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raises UsageError for a value that an option does not take."""
    if value not in allowed:
        raise UsageError(f"{option} {value!r}: choose {' or '.join(allowed)}")


def print_lines(lines: Iterable[str]) -> None:
    """Lines for people, on standard error."""
    for line in lines:
        print(printable(line), file=sys.stderr)


def print_check(result: CheckResult) -> None:
    from rich.table import Table

    print_lines(result.errors)
    print_lines(f"warning: {line}" for line in result.warnings[:30])
    if len(result.warnings) > 30:
        print_lines([f"warning: and {len(result.warnings) - 30} more"])
    console = console_on(sys.stdout)
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


def print_figures(console: Console, figures: dict[str, Figures]) -> None:
    table = table_on("", *figures)
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
    row("calibration error", [f"{part.calibration.ece:.3f}" for part in parts])
    row("  were it perfect", [f"{part.calibration.perfect:.3f}" for part in parts])
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


def print_themes(console: Console, figures: Figures) -> None:
    table = table_on("theme", "precision", "recall", "F1", "AP", "articles", "tagged")
    for theme in figures.themes:
        table.add_row(
            theme.name, f"{theme.precision:.3f}", f"{theme.recall:.3f}", f"{theme.f1:.3f}",
            _figure(theme.average_precision), str(theme.support), str(theme.tagged),
        )  # fmt: skip
    console.print()
    console.print(table)


def print_training(result: TrainResult) -> None:
    console = console_on(sys.stdout)
    figures = {"cross-validation": result.cv.figures}
    if result.test is not None:
        figures["test"] = result.test.figures
    print_figures(console, figures)
    print_themes(console, (result.test or result.cv).figures)
    console.print()
    if result.version is not None and result.verdict is not None:
        console.print(f"model    {result.version}: {result.verdict.reason}")
    if result.champion is not None:
        console.print(f"bundle   {result.champion} (what `themewire predict` uses)")
    console.print(f"run      {result.run_id} ({result.run_name}), {result.seconds:.0f} s")
    address = f"http://127.0.0.1:5000/#/experiments/{result.experiment_id}/runs/{result.run_id}"
    console.print(f"see it   make ui, then {address}", soft_wrap=True)


def table_on(first: str, *columns: str) -> Table:
    """A plain table: the first column to the left, the others to the right."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def print_comparison(found: Comparison, names: Sequence[str]) -> None:
    """Two models' figures side by side, the paired intervals, and where they differ."""
    console = console_on(sys.stdout)
    print_figures(
        console, dict(zip(names, (found.first.figures, found.second.figures), strict=True))
    )
    table = table_on("theme", "F1 of the first", "of the second", "articles")
    for one, other in zip(found.first.figures.themes, found.second.figures.themes, strict=True):
        table.add_row(one.name, f"{one.f1:.3f}", f"{other.f1:.3f}", str(one.support))
    console.print()
    console.print(table)
    console.print()
    console.print("second minus first, 95 %: macro-F1 {:+.3f} to {:+.3f}, ".format(*found.macro)
                  + "micro-F1 {:+.3f} to {:+.3f}".format(*found.micro))  # fmt: skip
    console.print(f"other tags on {len(found.differences)} of {len(found.first.labels)} stories")
    for each in found.differences:
        tags = [", ".join(part) or "none" for part in (each.labelled, each.first, each.second)]
        line = f"  {each.id}: labelled {tags[0]}; first {tags[1]}; second {tags[2]}; {each.title}"
        console.print(printable(line), markup=False, soft_wrap=True)


def print_suspects(stream: TextIO, suspects: Sequence[Suspect]) -> None:
    """A few lines a label that looks wrong."""
    console = console_on(stream)
    for each in suspects:
        what = "has" if each.labelled else "lacks"
        line = f"{each.place}: {each.article.id} {what} {each.theme} (quality {each.quality:.3f})"
        console.print(printable(line), markup=False, soft_wrap=True)
        console.print(_indented(printable(each.sentence)), markup=False)


def print_curve(points: Sequence[CurvePoint]) -> None:
    """The learning curve as a table."""
    table = table_on("articles", "cross-validated macro-F1", "other: macro-F1", "mean AP")
    for point in points:
        row = [f"{point.articles:,}"]
        for figures in (point.cv, point.other):
            low, high = figures.macro_interval if figures else (0.0, 0.0)
            row.append(f"{figures.macro_f1:.3f} ({low:.3f}–{high:.3f})" if figures else "–")
        mean_ap = point.other.mean_average_precision if point.other else None
        table.add_row(*row, _figure(mean_ap))
    console_on(sys.stdout).print(table)
