import pytest

from tests.conftest import ROOT
from themewire.config import config_from_json, load_config
from themewire.errors import UsageError


def write(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_set_beats_file_beats_default(tmp_path):
    path = write(tmp_path, "a.toml", "[tagger]\nc = 2.0\nngrams = 1\n")
    config = load_config(path, ["tagger.c=3.5"])
    assert (config.tagger.c, config.tagger.ngrams, config.tagger.min_df) == (3.5, 1, 2)


def test_extends_inherits_table_by_table(tmp_path):
    write(tmp_path, "base.toml", "[tagger]\nc = 2.0\n[split]\nfolds = 4\n")
    path = write(tmp_path, "child.toml", 'extends = "base.toml"\n[tagger]\nngrams = 1\n')
    config = load_config(path)
    assert (config.tagger.c, config.tagger.ngrams, config.split.folds) == (2.0, 1, 4)


def test_a_circle_is_refused(tmp_path):
    path = write(tmp_path, "a.toml", 'extends = "a.toml"\n')
    with pytest.raises(UsageError, match="extends itself"):
        load_config(path)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("split.sede=3", "unknown key split.sede; did you mean split.seed?"),
        ("splat.seed=3", "unknown key splat; did you mean split?"),
        ("split.seed=true", "split.seed: True"),
        ("split.folds=1", "split.folds: 1"),
        ("seed", "write section.key=value"),
        ("tagger.model=forest", "tagger.model: 'forest'"),
    ],
)
def test_what_is_not_declared_is_refused(setting, message):
    with pytest.raises(UsageError, match="--set") as caught:
        load_config(None, [setting])
    assert message in str(caught.value)


def test_strings_and_arrays_fill_lists():
    assert load_config(None, ["data.articles=a.jsonl"]).data.articles == ("a.jsonl",)
    assert load_config(None, ['data.articles=["a", "b"]']).data.articles == ("a", "b")
    assert load_config(None, ["data.test="]).data.test == ()


def test_missing_file_names_its_neighbours(tmp_path):
    write(tmp_path, "linear.toml", "")
    with pytest.raises(UsageError, match=r"has linear\.toml"):
        load_config(tmp_path / "liner.toml")


def test_every_shipped_configuration_loads_and_travels():
    files = [path for path in (ROOT / "configs").glob("*.toml") if path.name != "themes.toml"]
    assert len(files) >= 3
    for path in files:
        config = load_config(path)
        assert config_from_json(config.to_json()) == config
