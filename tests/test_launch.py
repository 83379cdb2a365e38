"""What several processes that train together say to the one that started them."""

from themewire.taggers.launch import Notes, processes, world_size


def test_notes_are_told_as_they_were_heard(tmp_path):
    notes, heard = Notes(tmp_path / "notes.jsonl"), []
    notes.tell(lambda figures, step: heard.append((figures, step)))
    assert heard == [], "nothing was written down yet"
    notes({"loss": 0.5}, 3)
    notes({"loss": 0.25, "mean_ap": 0.9}, 6)
    notes.tell(lambda figures, step: heard.append((figures, step)))
    assert heard == [({"loss": 0.5}, 3), ({"loss": 0.25, "mean_ap": 0.9}, 6)]


def test_one_process_for_each_gpu(monkeypatch):
    for gpus, wanted in ((0, 1), (1, 1), (4, 4)):
        monkeypatch.setattr("torch.cuda.device_count", lambda gpus=gpus: gpus)
        assert processes() == wanted
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert world_size() == 4
