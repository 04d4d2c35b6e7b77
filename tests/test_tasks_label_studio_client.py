"""Connections that never come about; those to a Label Studio are in tests/integration."""

import traceback

import httpx
import pytest

from schemas.errors import SourceUnreachableError
from tasks.label_studio.client import connected
from tests.servers import HOST, UNUSABLE_ANSWERS, answering, free_port


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://team:s3/cret@host:8080", "http://host:8080"),
        ("http://localhost:80a", "http://localhost:80a"),
        ("http://a..b/", "http://a..b"),
        ("labels.test", "labels.test"),
    ],
)
def test_a_url_that_is_no_address_is_told_without_its_password(url, shown):
    with pytest.raises(SourceUnreachableError) as error, connected(url, "secret"):
        pass
    assert str(error.value) == f"Label Studio at {shown} is no address; check the URL"
    assert "s3" not in "".join(traceback.format_exception(error.value))


@pytest.mark.parametrize("told", UNUSABLE_ANSWERS)
def test_a_server_whose_answers_can_t_be_used_can_t_be_reached(told):
    with answering(*UNUSABLE_ANSWERS[told]) as server, connected(server.url, "secret") as connection:
        with pytest.raises(SourceUnreachableError) as error:
            connection.version()
        assert str(error.value).startswith(f"Label Studio at {server.url} can't be reached ({told}); ")


def test_an_error_without_words_is_told_by_its_name():
    told = r"can't be reached \(ReadTimeout\); check"
    with (
        connected(f"http://{HOST}:{free_port()}", "secret") as connection,
        pytest.raises(SourceUnreachableError, match=told),
        connection.errors(),
    ):
        raise httpx.ReadTimeout("")


def test_what_was_opened_is_closed():
    with connected(f"http://{HOST}:{free_port()}", "secret") as connection:
        assert not connection.files.is_closed
    assert connection.files.is_closed


def test_what_was_not_opened_is_not_opened_to_be_closed():
    with connected(f"http://{HOST}:{free_port()}", "secret") as connection:
        pass
    assert not {"files", "_sdk_transport"}.intersection(vars(connection))
