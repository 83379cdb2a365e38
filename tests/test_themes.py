import pytest

from tests.conftest import ROOT
from themewire.errors import UsageError
from themewire.themes import Taxonomy, plain_taxonomy, read_taxonomy


def test_the_four_themes_in_their_order():
    taxonomy = read_taxonomy(ROOT / "configs" / "themes.toml")
    assert taxonomy.names == ("arms_supply", "joint_exercise", "basing_agreement", "training")
    assert all(theme.definition and theme.title for theme in taxonomy.themes)


def test_labels_follow_the_taxonomy():
    taxonomy = plain_taxonomy(["a", "b", "c"])
    assert taxonomy.label_array([["c", "a"], []]).tolist() == [[1, 0, 1], [0, 0, 0]]
    assert taxonomy.in_order(["c", "a"]) == ("a", "c")
    assert Taxonomy.from_json(taxonomy.to_json()) == taxonomy


@pytest.mark.parametrize("names", [[], ["a", "a"], ["with space"]])
def test_bad_names_are_refused(names):
    with pytest.raises(UsageError):
        plain_taxonomy(names)


def test_faults_in_the_file_are_named(tmp_path):
    path = tmp_path / "t.toml"
    path.write_text('[[theme]]\nname = "a"\ncolour = "red"\n')
    with pytest.raises(UsageError, match="theme 1: colour"):
        read_taxonomy(path)
