import json
import shutil

import pytest

from themewire.bundle import MANIFEST, install_bundle, load_bundle, read_manifest
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
