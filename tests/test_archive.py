"""Archives: every story exactly once, whatever breaks in between."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

from tests.conftest import run, tiny_records, write_jsonl
from themewire.archive import tag_archive
from themewire.inputs import Reader
from themewire.storage import exists, opened, result_at

with_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="the extra `ray` is not installed"
)


@pytest.fixture
def shards(tmp_path):
    for number in range(6):
        records = [
            {"id": r["id"], "text": r["text"]} for r in tiny_records(40, number, f"n{number}-")
        ]
        write_jsonl(tmp_path / "in" / f"part{number}.jsonl", records)
    with (tmp_path / "in" / "part2.jsonl").open("a") as file:
        file.write("not a record\n")
    (tmp_path / "in" / "part6.parquet").write_bytes(b"no table")
    return tmp_path


def tagged(folder):
    import pandas as pd

    return pd.concat([pd.read_parquet(path) for path in sorted(folder.glob("*.parquet"))])


def test_every_story_once_bad_records_apart_and_bad_shards_named(shards, tiny_bundle):
    command = ("archive", "in", "out", "--model", str(tiny_bundle))
    done = run(*command, cwd=shards)
    assert done.returncode == 1
    assert "240 stories tagged, 1 refused, 1 of 7 shards failed" in done.stderr
    frame = tagged(shards / "out")
    assert frame["id"].nunique() == len(frame) == 240
    (rejects,) = (shards / "out/rejects").iterdir()
    assert json.loads(rejects.read_text())["line"] == 41
    manifest = json.loads((shards / "out/manifest.json").read_text())
    assert (manifest["stories"], manifest["refused"], manifest["failed"]) == (240, 1, 1)
    before = {path: path.stat().st_mtime_ns for path in (shards / "out").glob("*.parquet")}
    again = run(*command, cwd=shards)
    assert "240 stories tagged, 1 refused" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in (shards / "out").glob("*.parquet")} == before


def test_results_inside_the_input_are_no_shards(shards, tiny_bundle):
    command = ("archive", "in", "in/tags", "--model", str(tiny_bundle))
    for _ in range(2):
        assert "1 of 7 shards failed" in run(*command, cwd=shards).stderr
    assert tagged(shards / "in/tags")["id"].nunique() == 240


def test_a_killed_job_goes_on_where_it_was(shards, tiny_bundle):
    command = ["archive", "in", "out", "--model", str(tiny_bundle)]
    process = subprocess.Popen(
        [sys.executable, "-m", "themewire", *command], cwd=shards, stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + 60
    while time.monotonic() < end and not list((shards / "out").glob("*.parquet")):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    run(*command, cwd=shards)
    frame = tagged(shards / "out")
    assert frame["id"].nunique() == len(frame) == 240


@with_ray
@pytest.mark.slow
def test_ray_gives_the_same(shards, tiny_bundle):
    for engine in ("local", "ray"):
        run(
            "archive",
            "in",
            engine,
            "--engine",
            engine,
            "--workers",
            "2",
            "--model",
            str(tiny_bundle),
            cwd=shards,
        )
    one, other = (
        tagged(shards / engine).set_index("id").sort_index() for engine in ("local", "ray")
    )
    assert len(one) == len(other) == 240
    assert one["p_sale"].tolist() == other["p_sale"].tolist()
    assert [list(t) for t in one["themes"]] == [list(t) for t in other["themes"]]
    manifest = json.loads((shards / "ray/manifest.json").read_text())
    assert (manifest["stories"], manifest["refused"], manifest["failed"]) == (240, 1, 1)


def test_a_storage_is_as_good_as_a_folder(shards, tiny_bundle):
    """Any file system that fsspec knows; here its own view of the local one, and one in memory."""
    address = f"file://{shards}"
    done = run(
        "archive", f"{address}/in", f"{address}/out", "--model", str(tiny_bundle), cwd=shards
    )
    assert "240 stories tagged, 1 refused, 1 of 7 shards failed" in done.stderr, done.stderr
    again = run(
        "archive",
        f"{address}/in/*.jsonl",
        f"{address}/out",
        "--model",
        str(tiny_bundle),
        cwd=shards,
    )
    assert "240 stories tagged, 1 refused, 0 of 6 shards failed" in again.stderr, "done before"
    run("archive", "in", "local", "--model", str(tiny_bundle), cwd=shards)
    one, other = (tagged(shards / name).set_index("id").sort_index() for name in ("local", "out"))
    assert one["p_sale"].tolist() == other["p_sale"].tolist()
    assert not list(shards.rglob("*.part"))


def test_what_is_written_half_is_not_there():
    memory = fsspec.filesystem("memory")
    with suppress(InterruptedError), result_at("memory://tags/a.parquet") as draft:
        draft.write_bytes(b"half")
        raise InterruptedError
    assert not exists("memory://tags/a.parquet")
    with result_at("memory://tags/a.parquet") as draft:
        draft.write_bytes(b"whole")
    with opened("memory://tags/a.parquet") as stream:
        assert stream.read() == b"whole"
    assert memory.find("/tags") == ["/tags/a.parquet"]


def test_a_driver_with_errors_of_its_own_stops_its_shard_alone(tiny_bundle, tmp_path):
    class Faulty(MemoryFileSystem):
        protocol = "faulty"
        store, pseudo_dirs = {}, [""]

        @classmethod
        def _strip_protocol(cls, path):
            return super()._strip_protocol(path.replace("faulty://", "memory://"))

        def _open(self, path, *args, **kwargs):
            if "bad" in path:
                raise RuntimeError("the bucket\nsays no")
            return super()._open(path, *args, **kwargs)

    fsspec.register_implementation("faulty", Faulty, clobber=True)
    records = "".join(
        json.dumps({"id": r["id"], "text": r["text"]}) + "\n" for r in tiny_records(5, 1)
    )
    for name in ("/in/a.jsonl", "/in/bad.jsonl", "/in/c.jsonl"):
        Faulty().store[name] = MemoryFile(Faulty(), name, records.encode())
    done = list(
        tag_archive(["faulty://in"], str(tmp_path / "out"), str(tiny_bundle), Reader(storage=True))
    )
    assert [each.stories for each in done] == [5, 0, 5]
    assert done[1].failed == "faulty:///in/bad.jsonl: RuntimeError: the bucket says no"
    assert len(list((tmp_path / "out").glob("*.parquet"))) == 2


def test_a_storage_that_breaks_off_leaves_the_shard_to_be_done_again(tiny_bundle, tmp_path):
    class Breaking(MemoryFileSystem):
        protocol = "breaking"
        store, pseudo_dirs, broken = {}, [""], True

        @classmethod
        def _strip_protocol(cls, path):
            return super()._strip_protocol(path.replace("breaking://", "memory://"))

        def _open(self, path, *args, **kwargs):
            class Half(MemoryFile):
                def readline(self, *size):
                    if self.tell() > 300:
                        raise OSError("connection reset")
                    return super().readline(*size)

                def read(self, *size):
                    return self.readline()

                def readinto(self, buffer):
                    line = self.readline()
                    buffer[: len(line)] = line
                    return len(line)

            found = super()._open(path, *args, **kwargs)
            return Half(self, path, found.getvalue()) if self.broken else found

    fsspec.register_implementation("breaking", Breaking, clobber=True)
    records = "".join(
        json.dumps({"id": r["id"], "text": r["text"]}) + "\n" for r in tiny_records(5, 1)
    )
    Breaking().store["/in/a.jsonl"] = MemoryFile(Breaking(), "/in/a.jsonl", records.encode())
    given = (["breaking://in"], str(tmp_path / "out"), str(tiny_bundle), Reader(storage=True))
    (done,) = tag_archive(*given)
    assert "connection reset" in done.failed
    assert not list((tmp_path / "out").rglob("*.parquet"))
    Breaking.broken = False
    (done,) = tag_archive(*given)
    assert (done.stories, done.refused, done.failed) == (5, 0, "")


def test_a_storage_nobody_knows_is_named(tmp_path, tiny_bundle):
    done = run("archive", "nowhere://a/b", "out", "--model", str(tiny_bundle), cwd=tmp_path)
    assert done.returncode == 2
    assert "nowhere" in done.stderr
    assert done.stderr.count("\n") == 1


def test_predict_opens_no_storage(shards, tiny_bundle):
    given = f"file://{shards}/in/part0.jsonl"
    done = run("predict", given, "--model", str(tiny_bundle), cwd=shards)
    assert done.returncode == 1
    assert not done.stdout
