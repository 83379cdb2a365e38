"""The commands as a user runs them: whole processes, their output and exit codes."""

import json
import signal
import subprocess
import sys

import pytest

from tests.conftest import imported_beyond_the_core, run, tiny_records, write_jsonl


def test_predict_from_standard_input_and_files(tiny_bundle, tmp_path):
    story = "Rain fell on the capital 3 times. Farmers met the mayor 4 times. A cargo of rifles was sold abroad on day 5."
    (tmp_path / "s.txt").write_text(story)
    found = run("predict", "s.txt", "-", "--model", str(tiny_bundle), cwd=tmp_path, stdin=story)
    assert found.returncode == 0, found.stderr
    records = [json.loads(line) for line in found.stdout.splitlines()]
    assert [record["id"] for record in records] == ["s.txt", "-"]
    assert records[0]["themes"] == ["sale"]


def test_table_shows_theme_and_sentence(tiny_bundle, tmp_path):
    found = run("predict", "--format", "table", cwd=tmp_path, env={"THEMEWIRE_MODEL": str(tiny_bundle)},
                stdin="A cargo of rifles was sold abroad.\x1b[31m")  # fmt: skip
    assert "sale" in found.stdout
    assert "A cargo of rifles was sold abroad." in found.stdout
    assert "\x1b" not in found.stdout


def test_refused_records_are_one_line_each_and_exit_1(tiny_bundle, tmp_path):
    write_jsonl(tmp_path / "a.jsonl", [{"text": "x"}, "{", {"id": 1, "text": "x"}])
    found = run("predict", "a.jsonl", "--model", str(tiny_bundle), cwd=tmp_path)
    assert found.returncode == 1
    assert len(found.stdout.splitlines()) == 1
    assert [line[:9] for line in found.stderr.splitlines()] == ["a.jsonl:2", "a.jsonl:3"]


def test_output_is_written_whole(tiny_bundle, tmp_path):
    found = run(
        "predict", "--output", "out.jsonl", "--model", str(tiny_bundle), cwd=tmp_path, stdin="x"
    )
    assert found.returncode == 0
    assert json.loads((tmp_path / "out.jsonl").read_text())["id"] == "-"
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["predict"], 2, "run `make train`"),
        (["predict", "--format", "xml"], 2, "--format 'xml': choose table or jsonl"),
        (["predict", "--colour"], 2, "No such option"),
        (["fly"], 2, "No such command"),
        (["predict", "--model", "{bundle}", "--output", "no/where.jsonl"], 2, "cannot be written"),
        (["predict", "--model", "{bundle}", "--output", "/dev/null/x"], 2, "cannot be written"),
        (["train", "nothing.toml"], 2, "no such configuration"),
        (["train", "--set", "split.sede=1"], 2, "did you mean split.seed?"),
        (["check", "--set", 'taxonomy.names=["a"]'], 1, "no articles there"),
    ],
)
def test_user_errors_are_one_line(tiny_bundle, tmp_path, args, code, message):
    args = [str(tiny_bundle) if arg == "{bundle}" else arg for arg in args]
    found = run(*args, cwd=tmp_path, stdin="x")
    assert found.returncode == code
    assert message in found.stderr
    assert len(found.stderr.splitlines()) == 1


def test_predict_imports_no_training_stack(tiny_bundle, tmp_path):
    assert imported_beyond_the_core(tiny_bundle, tmp_path) == []


def test_version_and_help(tmp_path):
    assert run("--version", cwd=tmp_path).stdout.startswith("themewire 0.")
    found = run("--help", cwd=tmp_path)
    for command in ("train", "predict", "evaluate", "check"):
        assert command in found.stdout


def test_closed_pipe_ends_with_0(tiny_bundle, tmp_path):
    write_jsonl(tmp_path / "a.jsonl", [{"text": f"story {i} " * 50} for i in range(3000)])
    command = f"{sys.executable} -m themewire predict a.jsonl --model {tiny_bundle} | head -1; echo ${{PIPESTATUS[0]}}"
    found = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert found.stdout.splitlines()[-1] == "0"
    assert found.stderr == ""


@pytest.fixture
def interruptible():
    """What a shell starts in the background is deaf to an interrupt, and so is what that starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_interrupt_ends_with_130(tiny_bundle, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "themewire", "predict", "--jsonl", "--model", str(tiny_bundle)],
        cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    # more than a pipe holds: once it is written, the command is reading
    record = json.dumps({"id": "a", "text": "Rain fell on the harbour all day. " * 60})
    process.stdin.write(f"{record}\n".encode() * 100)
    process.stdin.flush()
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"Traceback" not in stderr


def test_evaluate_gives_figures_for_any_labelled_file(tiny_bundle, tmp_path):
    write_jsonl(tmp_path / "new.jsonl", tiny_records(30, 9))
    found = run(
        "evaluate", "new.jsonl", "--model", str(tiny_bundle), "--format", "json", cwd=tmp_path
    )
    figures = json.loads(found.stdout)
    assert figures["articles"] == 30
    assert figures["macro_f1"] > 0.9
    assert 0 <= figures["evidence/hit_at_1"] <= figures["evidence/hit_at_3"] <= 1


def test_check_counts_and_refuses_leaks(workplace):
    settings = ["--set", "data.articles=articles.jsonl", "--set", "data.test=test.jsonl",
                "--set", 'taxonomy.names=["sale", "drill"]']  # fmt: skip
    found = run("check", *settings, cwd=workplace)
    assert found.returncode == 0, found.stderr
    assert "60 articles, 20 for the test" in found.stdout
    leak = tiny_records(60, 1)[0] | {"id": "other"}
    write_jsonl(workplace / "test.jsonl", [*tiny_records(20, 2, "t"), leak])
    assert run("check", *settings, cwd=workplace).returncode == 1
    assert run("check", *settings, "--set", "checks.leaks=warn", cwd=workplace).returncode == 0
