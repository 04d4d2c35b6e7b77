import socket
from contextlib import suppress

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.addresses import is_address


@pytest.mark.parametrize(
    "text",
    [
        "http://labels.test",
        "https://team:s3cret@labels.test:8080/api?page=1",
        "http://127.0.0.1:1/",
        "http://[::1]:8080/face@2x.png",
        "http://größe.test/a b.png",
        "http://labels.test./",
    ],
)
def test_a_server_can_be_asked(text):
    assert is_address(text)


@pytest.mark.parametrize(
    "text",
    [
        "http://team:pa/ss@labels.test:8080",
        "http://labels.test:80a",
        "http://labels.test:65536",
        "http://a..b",
        f"http://{'a' * 64}.test",
        "http://[x/a.png",
        "http:///a.png",
        "labels.test:8080",
        "ftp://labels.test",
        "http://labels.test/\n",
        "",
    ],
)
def test_nobody_can_be_asked(text):
    assert not is_address(text)


@given(st.text("ab.:[]@/%1\n é-", max_size=12))
def test_the_socket_takes_the_host_of_an_address(rest):
    text = f"http://{rest}"
    if is_address(text):
        host = httpx.URL(text).raw_host.decode()
        with suppress(socket.gaierror):  # no numbers: nobody is asked who has that name
            socket.getaddrinfo(host, 80, flags=socket.AI_NUMERICHOST)
