import json
import shutil
import zipfile

import pytest

from tests.conftest import run
from themewire.bundle import (
    MANIFEST,
    install_bundle,
    load_bundle,
    pack_bundle,
    read_manifest,
    unpack_bundle,
)
from themewire.errors import UsageError


@pytest.fixture
def copy(tiny_bundle, tmp_path):
    return shutil.copytree(tiny_bundle, tmp_path / "copy")


def rewrite(folder, change):
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_it_holds_what_the_contract_names(tiny_bundle):
    manifest, digest = read_manifest(tiny_bundle)
    names = {entry.path for entry in manifest.files}
    assert {"taxonomy.json", "decision.json", "config.json", "card.md"} < names
    assert manifest.format_version == 1
    assert load_bundle(tiny_bundle).digest == digest


def test_a_changed_file_is_refused_by_name(copy):
    path = copy / "decision.json"
    path.write_text(path.read_text().replace("0.", "1.", 1))
    with pytest.raises(UsageError, match=r"decision\.json: refused"):
        load_bundle(copy)


def test_a_missing_file_is_refused_by_name(copy):
    (copy / "linear.safetensors").unlink()
    with pytest.raises(UsageError, match=r"linear\.safetensors: refused: missing"):
        load_bundle(copy)


def test_a_planted_file_is_refused(copy):
    (copy / "extra.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(UsageError, match=r"extra\.pkl"):
        load_bundle(copy)


def test_a_link_is_refused(copy, tmp_path):
    shutil.move(copy / "card.md", tmp_path / "card.md")
    (copy / "card.md").symlink_to(tmp_path / "card.md")
    with pytest.raises(UsageError, match=r"card\.md"):
        load_bundle(copy)


@pytest.mark.parametrize(
    "path", ["../card.md", "/etc/passwd", "a/../../b.json", "", "manifest.json"]
)
def test_paths_that_leave_the_folder_are_refused(copy, path):
    rewrite(copy, lambda m: m["files"][0].update(path=path))
    with pytest.raises(UsageError, match="refused"):
        load_bundle(copy)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(format_version=99),
        lambda m: m.update(hook="run me"),
        lambda m: m.update(tagger="forest"),
        lambda m: m["files"][0].update(size=10**15),
        lambda m: m["files"][0].update(size=-1),
        lambda m: m["files"][0].update(path="weights.pkl"),
        lambda m: m.pop("files"),
    ],
)
def test_odd_manifests_are_refused(copy, change):
    rewrite(copy, change)
    with pytest.raises(UsageError, match="refused"):
        load_bundle(copy)


def test_no_bundle_says_what_to_do(tmp_path):
    with pytest.raises(UsageError, match="make train"):
        load_bundle(tmp_path)


def test_installing_replaces_whole(tiny_bundle, tmp_path):
    target = tmp_path / "models" / "champion"
    install_bundle(tiny_bundle, target)
    (target / "stray.txt").write_text("left over")
    install_bundle(tiny_bundle, target)
    assert load_bundle(target).digest == load_bundle(tiny_bundle).digest
    assert [path.name for path in target.parent.iterdir()] == ["champion"]


def test_one_file_that_predicts_and_is_verified(tmp_path, tiny_bundle):
    done = run("pack", "--model", str(tiny_bundle), "--output", "b.zip", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    digest = load_bundle(tiny_bundle).digest
    assert digest in done.stdout
    again = pack_bundle(tiny_bundle, tmp_path / "again.zip")
    assert again == digest
    assert (tmp_path / "b.zip").read_bytes() == (tmp_path / "again.zip").read_bytes()
    found = run(
        "predict", "-", "--model", "b.zip", cwd=tmp_path, stdin="The rifles were sold abroad."
    )
    assert json.loads(found.stdout)["themes"] == ["sale"]
    assert json.loads(found.stdout)["model"] == f"b.zip@sha256:{digest}"
    assert "sound; linear" in run("verify", "b.zip", "--digest", digest[:12], cwd=tmp_path).stdout
    assert "sound; linear" in run("verify", str(tiny_bundle), cwd=tmp_path).stdout
    for wrong in (["b.zip", "--digest", "0" * 64], ["b.zip", "--digest", "6"], ["none"], ["again"]):
        refused = run("verify", *wrong, cwd=tmp_path)
        assert refused.returncode == 2
        assert len(refused.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "name", ["../out.json", "/out.json", "a/../../out.json", "model.pkl", "x\\y.json"]
)
def test_an_archive_with_what_no_bundle_holds_is_refused(tmp_path, tiny_bundle, name):
    pack_bundle(tiny_bundle, tmp_path / "b.zip")
    with zipfile.ZipFile(tmp_path / "b.zip", "a") as archive:
        archive.writestr(name, b"cos\nsystem\n(S'touch owned'\ntR.")
    (tmp_path / "in").mkdir()
    with pytest.raises(UsageError, match="refused: holds"):
        unpack_bundle(tmp_path / "b.zip", tmp_path / "in")
    assert not (tmp_path / "out.json").exists()


def test_a_broken_archive_is_refused(tmp_path, tiny_bundle):
    pack_bundle(tiny_bundle, tmp_path / "b.zip")
    raw = (tmp_path / "b.zip").read_bytes()
    for position, cut in enumerate((raw[: len(raw) // 2], raw[:500] + b"xxxx" + raw[504:], b"PK")):
        (tmp_path / "cut.zip").write_bytes(cut)
        folder = tmp_path / f"in{position}"
        folder.mkdir()
        with pytest.raises(UsageError, match="refused"):
            unpack_bundle(tmp_path / "cut.zip", folder)
