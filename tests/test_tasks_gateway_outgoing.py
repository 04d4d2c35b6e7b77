"""Journal entries as Prefect events."""

import uuid
from dataclasses import replace
from pathlib import Path

import yaml
from hypothesis import given
from hypothesis import strategies as st
from prefect.events.schemas.events import Event, ResourceSpecification

from schemas.config import load_config
from tasks.gateway.hints import MOST_IDS, Hint
from tasks.gateway.outgoing import Entry, coalesce, prefect_event

ID = uuid.UUID(int=5)


def annotation(number, *, project="7", action="ANNOTATION_UPDATED", tasks=(), annotations=()):
    detail = {"task_ids": list(tasks), "annotation_ids": list(annotations)}
    return Entry(number, 1000.5 + number, Hint("label-studio", project, action, detail))


def registry(number, **detail):
    return Entry(number, 2000.0, Hint("mlflow", "fpenet", "model_version_alias.created", detail))


def ids_of(group):
    return {(name, held) for entry in group for name, ids in entry.hint.detail.items() for held in ids}


ENTRIES = st.lists(
    st.one_of(
        st.builds(
            annotation,
            st.just(0),
            project=st.sampled_from("12"),
            action=st.sampled_from(["ANNOTATION_UPDATED", "TASKS_DELETED"]),
            tasks=st.integers(0, 5).flatmap(
                lambda start: st.sampled_from([0, 1, 400, MOST_IDS]).map(lambda n: range(start, start + n))
            ),
        ),
        st.builds(registry, st.just(0), version=st.sampled_from("12")),
    ),
    max_size=20,
)


@given(ENTRIES)
def test_every_entry_is_in_one_event_with_its_like_and_the_ids_fit(entries):
    entries = [Entry(number, entry.received, entry.hint) for number, entry in enumerate(entries)]
    groups = coalesce(entries)
    assert sorted(entry.number for group in groups for entry in group) == list(range(len(entries)))
    assert [group[0].number for group in groups] == sorted(group[0].number for group in groups)
    for group in groups:
        assert [entry.number for entry in group] == sorted(entry.number for entry in group)
        assert len({(entry.hint.source, entry.hint.subject, entry.hint.action) for entry in group}) == 1
        assert group[0].hint.source == "label-studio" or len(group) == 1
        assert len(ids_of(group)) <= MOST_IDS
        named = [bool(ids_of([entry])) for entry in group]
        assert all(named) or not any(named), "no ids mean the whole project, which a list of some ids would hide"


def test_a_burst_is_one_event():
    group, other = coalesce(
        [
            annotation(1, tasks=[5], annotations=[50]),
            annotation(2, project="8", tasks=[5]),
            annotation(3, tasks=[4, 5], annotations=[51]),
        ]
    )
    event = prefect_event(group, event_id=ID, now=5000.25)
    assert event == {
        "id": "00000000-0000-0000-0000-000000000005",
        "occurred": "1970-01-01T01:23:20.250000Z",
        "event": "fpenet.annotations.changed",
        "resource": {"prefect.resource.id": "fpenet.labelstudio.project.7", "prefect.resource.name": "7"},
        "payload": {
            "project_id": 7,
            "action": "ANNOTATION_UPDATED",
            "task_ids": [4, 5],
            "annotation_ids": [50, 51],
            "received_at": "1970-01-01T00:16:43.500000Z",
        },
    }
    assert [entry.number for entry in other] == [2]


def test_the_events_are_prefect_s():
    for entry in (annotation(1, tasks=[5]), registry(2, version="3", alias="champion")):
        Event.model_validate(prefect_event([entry], event_id=ID, now=5000.0))


def test_a_tag_that_was_set_is_a_label_that_automations_choose_by():
    hint = Hint("mlflow", "fpenet", "model_version_tag.set", {"version": "3", "tag": "review"})
    event = prefect_event([Entry(1, 2000.0, hint)], event_id=ID, now=5000.0)
    assert event["event"] == "fpenet.registry.model-version-tag-set"
    assert event["resource"]["fpenet.registry.tag"] == "review"
    deployed = yaml.safe_load((Path(__file__).parents[1] / "prefect.yaml").read_text())["deployments"]
    (trigger, _) = next(found["triggers"] for found in deployed if found["name"] == "review")
    decision = ResourceSpecification.model_validate(trigger["match"])
    resource = Event.model_validate(event).resource
    assert decision.matches(resource)
    own = replace(hint, detail={"version": "3", "tag": "review.state"})
    event = prefect_event([Entry(2, 2000.0, own)], event_id=ID, now=5000.0)
    assert not decision.matches(Event.model_validate(event).resource), "what flows write would wake flows for ever"


def test_a_new_name_wakes_suggest_if_it_is_of_the_configuration_s_model():
    project = Path(__file__).parents[1]
    deployed = yaml.safe_load((project / "prefect.yaml").read_text())
    (trigger, _) = next(found["triggers"] for found in deployed["deployments"] if found["name"] == "suggest")
    match = ResourceSpecification.model_validate(trigger["match"])
    own = load_config(project / deployed["definitions"]["config"]).tracking.registered_model
    for name, wakes in ((own, True), ("another-team-s", False)):
        hint = Hint("mlflow", name, "model_version_alias.created", {"version": "3", "alias": "champion"})
        event = Event.model_validate(prefect_event([Entry(1, 2000.0, hint)], event_id=ID, now=5000.0))
        assert event.event in trigger["expect"] and match.matches(event.resource) is wakes


def test_no_trigger_fires_without_an_event():
    """Prefect opens a count for a Proactive trigger without `for_each`, whatever its `after` says."""
    deployed = yaml.safe_load((Path(__file__).parents[1] / "prefect.yaml").read_text())["deployments"]
    triggers = [trigger for found in deployed for trigger in found.get("triggers", ())]
    waiting = [trigger for trigger in triggers if trigger["posture"] == "Proactive"]
    assert len(waiting) == 3 and all(trigger["for_each"] and trigger["after"] for trigger in waiting)


def test_a_registry_event_names_what_happened_to_which_model():
    event = prefect_event([registry(2, version="3", alias="champion")], event_id=ID, now=5000.0)
    assert event["event"] == "fpenet.registry.model-version-alias-created"
    assert event["resource"]["prefect.resource.id"] == "fpenet.registry.model.fpenet"
    assert event["payload"] == {
        "name": "fpenet",
        "version": "3",
        "alias": "champion",
        "received_at": "1970-01-01T00:33:20Z",
    }
