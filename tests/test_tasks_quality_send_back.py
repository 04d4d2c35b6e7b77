from schemas.sources import LabelStudioSource, SlothSource
from tasks.pull import PullResult
from tasks.quality.send_back import link_of, places


def found_places(tmp_path):
    server = LabelStudioSource(kind="label_studio", name="team", url="http://one.test/", project="Faces")
    folder = SlothSource(kind="sloth", name="folder", root="faces")
    pulls = [
        PullResult("team", "label_studio", tmp_path, 3, {}, "", {"project": {"id": 12, "title": "Faces"}}),
        PullResult("folder", "sloth", tmp_path, 3, {}, "", {}),
    ]
    return places([server, folder], pulls)


def test_a_face_leads_to_its_task(tmp_path):
    found = found_places(tmp_path)
    assert list(found) == ["team"]
    for key in ("team:task/41/annotation/7", "team:task/41"):
        assert link_of(key, found) == "http://one.test/projects/12/data?task=41"


def test_what_is_on_no_server_has_no_link(tmp_path):
    for key in ("folder:gt/a.json#1", "other:task/41", "team:export.json#3/task/41/annotation/7", "odd"):
        assert link_of(key, found_places(tmp_path)) is None
