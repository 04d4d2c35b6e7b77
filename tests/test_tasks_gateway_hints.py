"""What is kept of a delivery, and what is refused."""

import json
import re

import pytest
from mlflow.entities.webhook import WebhookAction, WebhookEntity
from mlflow.webhooks.types import EVENT_TO_PAYLOAD_CLASS

from schemas.errors import DeliveryError
from tasks.gateway.hints import (
    LABEL_STUDIO_ACTIONS,
    MOST_IDS,
    REGISTRY_ACTIONS,
    Hint,
    label_studio_hint,
    registry_hint,
)
from tests.gateways import annotation_event, registry_event


def hint_of(payload, **options):
    return label_studio_hint(json.dumps(payload).encode(), **options)


def refusal(function, body: bytes) -> DeliveryError:
    with pytest.raises(DeliveryError) as caught:
        function(body)
    return caught.value


def test_of_an_annotation_only_who_what_and_the_ids_are_kept():
    assert hint_of(annotation_event(5)) == Hint(
        "label-studio", "7", "ANNOTATION_CREATED", {"task_ids": [1005], "annotation_ids": [5]}
    )


@pytest.mark.parametrize(
    ("rest", "tasks", "annotations"),
    [
        ({"annotations": [{"id": 9}, {"id": 8}, {"id": 9}]}, [], [8, 9]),
        ({"tasks": [{"id": 4, "data": {}}, {"id": 3}]}, [3, 4], []),
        ({"annotation": [{"id": 1}, {"id": 2}], "task": [{"id": 5}]}, [5], [1, 2]),
        ({"annotation": None, "task": {"id": "12"}}, [12], []),
        ({}, [], []),
    ],
)
def test_one_object_or_many_and_ids_in_quotes(rest, tasks, annotations):
    hint = hint_of({"action": "TASKS_CREATED", "project": {"id": "7"}} | rest)
    assert (hint.subject, hint.detail) == ("7", {"task_ids": tasks, "annotation_ids": annotations})


def test_too_many_ids_mean_the_whole_project():
    tasks = [{"id": number} for number in range(MOST_IDS + 1)]
    payload = {"action": "TASKS_CREATED", "project": {"id": 7}}
    assert len(hint_of(payload | {"tasks": tasks[:-1]}).detail["task_ids"]) == MOST_IDS
    assert hint_of(payload | {"tasks": tasks}).detail == {"task_ids": [], "annotation_ids": []}


def test_an_action_that_is_new_is_a_hint_too():
    hint = hint_of({"action": "SOMETHING_NEW", "project": {"id": 7}})
    assert (hint.action, hint.known) == ("SOMETHING_NEW", False)


def test_the_project_in_the_url_where_the_payload_has_none():
    assert hint_of({"action": "ANNOTATION_UPDATED"}, project="9").subject == "9"
    assert hint_of(annotation_event(project=7), project="9").subject == "7"


@pytest.mark.parametrize(
    ("body", "reason", "says"),
    [
        (b"", "malformed", "empty"),
        (b'{"action": "ANNOTATION_CREATED"', "malformed", "line 1"),
        (b'{"action": NaN}', "malformed", "no JSON"),
        (b"\xff\xfe", "malformed", "no JSON"),
        (b"[" * 100_000, "malformed", "no JSON"),
        (b"[]", "not-understood", "no object"),
        (b"null", "not-understood", "no object"),
        (b"{}", "not-understood", "'action'"),
        (b'{"action": "annotation created", "project": {"id": 1}}', "not-understood", "'action'"),
        (b'{"action": "TASKS_CREATED"}', "not-understood", "'project'"),
        (b'{"action": "TASKS_CREATED", "project": {}}', "not-understood", "'project'"),
        (b'{"action": "TASKS_CREATED", "project": {"id": -1}}', "not-understood", "'project'"),
        (b'{"action": "TASKS_CREATED", "project": {"id": true}}', "not-understood", "'project'"),
        (b'{"action": "TASKS_CREATED", "project": {"id": 1.5}}', "not-understood", "'project'"),
        (b'{"action": "TASKS_CREATED", "project": {"id": "\xc2\xb2"}}', "not-understood", "'project'"),
        (b'{"action": "TASKS_CREATED", "project": {"id": 99999999999999999999}}', "not-understood", "'project'"),
        (b'{"action": "TASKS_CREATED", "project": {"id": 1}, "tasks": [{"data": 1}]}', "not-understood", "'tasks'"),
    ],
)
def test_what_is_no_event_of_label_studio(body, reason, says):
    error = refusal(label_studio_hint, body)
    assert error.reason == reason
    assert says in str(error)


def test_an_error_does_not_quote_the_body():
    assert "invite" not in str(refusal(label_studio_hint, b'{"token": "invite'))


def test_every_model_event_of_mlflow_and_nothing_else():
    """MLflow's own examples: models are hints, prompts and budgets are none."""
    assert {f"{WebhookEntity.MODEL_VERSION.value}.{WebhookAction.CREATED.value}"} <= set(REGISTRY_ACTIONS)
    for (entity, action), payload in EVENT_TO_PAYLOAD_CLASS.items():
        event = f"{entity.value}.{action.value}"
        body = json.dumps({"entity": entity.value, "action": action.value, "data": payload.example()}).encode()
        hint = registry_hint(body)
        assert (hint is not None) == (event in REGISTRY_ACTIONS), event
        if hint is not None:
            assert (hint.subject, hint.action, hint.known) == ("example_model", event, True)


def test_of_a_registry_event_only_what_names_the_change_is_kept():
    event = registry_event("model_version_tag", "set")
    event["data"] = {"name": "fpenet", "version": "3", "key": "review", "value": "because of Mr Smith"}
    assert registry_hint(json.dumps(event).encode()).detail == {"version": "3", "tag": "review"}


@pytest.mark.parametrize("data", [{"name": ""}, {"name": 5}, {"version": 3}, {"alias": "x" * 501}])
def test_a_registry_event_with_odd_data(data):
    error = refusal(registry_hint, json.dumps(registry_event(**data)).encode())
    assert error.reason == "not-understood"
    assert next(iter(data)) in str(error)


@pytest.mark.parametrize(
    "body", [b"{}", b'{"entity": 1, "action": "a", "data": {}}', b'{"entity": "e", "action": "a"}']
)
def test_what_is_no_event_of_mlflow(body):
    assert refusal(registry_hint, body).reason == "not-understood"


def test_label_studio_s_actions_are_those_of_the_server():
    """Read out of the installed server, where it is: a new version may have new ones."""
    import tasks.label_studio.server as server

    environment = server.ENVIRONMENT / "lib"
    found = list(environment.glob("python*/site-packages/label_studio/webhooks/models.py"))
    if not found:
        pytest.skip(f"Label Studio is not installed in {server.ENVIRONMENT}")
    text = found[0].read_text()
    assert set(re.findall(r"^    ([A-Z_]+) = '\1'$", text, re.MULTILINE)) == set(LABEL_STUDIO_ACTIONS)
