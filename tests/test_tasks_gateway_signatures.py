"""Secrets and signatures: right, wrong, old, late, and from the future."""

import json

import pytest
from mlflow.webhooks.delivery import _generate_hmac_signature

from schemas.errors import DeliveryError, InputError
from tasks.gateway.settings import GatewaySettings, SharedSecret, required_secret
from tasks.gateway.signatures import DELIVERY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, Stamp, check_secret

NEW, OLD = "a-secret-of-some-length-1", "a-secret-of-some-length-0"
BOTH = SharedSecret(NEW.encode(), OLD.encode())
NOW, TOLERANCE = 1_800_000_000.0, 300
BODY = json.dumps({"data": {"name": "fpenet", "description": "größer"}}).encode()
VARIABLE = "FPENET_TEST_SECRET"


def headers(secret=NEW, *, delivery="d-1", timestamp=int(NOW), body=BODY):
    signature = _generate_hmac_signature(secret, delivery, str(timestamp), body.decode())
    return {DELIVERY_HEADER: delivery, TIMESTAMP_HEADER: str(timestamp), SIGNATURE_HEADER: signature}


def stamp(given):
    return Stamp.of(given, now=NOW, tolerance_s=TOLERANCE)


def reason(function, *arguments):
    with pytest.raises(DeliveryError) as caught:
        function(*arguments)
    return caught.value.reason


@pytest.mark.parametrize(("given", "previous"), [(NEW, False), (OLD, True)])
def test_two_secrets_are_taken_while_senders_change(given, previous):
    assert check_secret(BOTH, given) is previous
    assert stamp(headers(given)).check(BOTH, BODY) is previous


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, "no-secret"),
        ("", "no-secret"),
        *((wrong, "wrong-secret") for wrong in (NEW[:-1], f"{NEW} ", "ümlaut" * 4, OLD.upper())),
    ],
)
def test_wrong_secrets(given, expected):
    assert reason(check_secret, BOTH, given) == expected


def test_without_a_previous_secret_none_is_taken():
    only = SharedSecret(NEW.encode())
    assert reason(check_secret, only, OLD) == "wrong-secret"
    assert reason(check_secret, only, "None") == "wrong-secret"
    assert reason(stamp(headers(OLD)).check, only, BODY) == "wrong-secret"
    assert check_secret(only, NEW) is stamp(headers(NEW)).check(only, BODY) is False


def test_every_part_of_a_delivery_is_signed():
    good = headers()
    assert stamp(good).check(BOTH, BODY) is False
    for name, other in ((DELIVERY_HEADER, "d-2"), (TIMESTAMP_HEADER, str(int(NOW) - 1))):
        assert reason(stamp(good | {name: other}).check, BOTH, BODY) == "wrong-secret"
    assert reason(stamp(good).check, BOTH, BODY + b" ") == "wrong-secret"
    assert reason(stamp(good | {SIGNATURE_HEADER: "v1,"}).check, BOTH, BODY) == "wrong-secret"


@pytest.mark.parametrize("late_s", [-TOLERANCE, 0, TOLERANCE])
def test_clocks_may_differ_a_little(late_s):
    stamp(headers(timestamp=int(NOW - late_s))).check(BOTH, BODY)


@pytest.mark.parametrize(("late_s", "says"), [(-TOLERANCE - 1, "from now"), (TOLERANCE + 1, "ago")])
def test_a_stale_delivery_says_how_far_the_clocks_are_apart(late_s, says):
    with pytest.raises(DeliveryError, match=f"301 s {says}") as caught:
        stamp(headers(timestamp=int(NOW - late_s)))
    assert caught.value.reason == "stale"


@pytest.mark.parametrize(
    "change",
    [{name: ""} for name in (DELIVERY_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER)]
    + [{DELIVERY_HEADER: "a.b"}, {DELIVERY_HEADER: "x" * 101}, {TIMESTAMP_HEADER: "-5"}, {TIMESTAMP_HEADER: "²"}]
    + [{TIMESTAMP_HEADER: f"{int(NOW)}.5"}],
)
def test_headers_that_are_missing_or_misshapen(change):
    assert reason(stamp, headers() | change) == "no-secret"


def test_a_secret_is_not_shown():
    assert NEW not in repr(BOTH) and OLD not in repr(BOTH)


@pytest.mark.parametrize(
    "text", ["sh0rt-one", "a secret with a\nline break", " a-secret-with-spaces-around ", "ü" * 20]
)
def test_a_secret_that_no_header_carries_is_refused_without_being_shown(monkeypatch, text):
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(InputError, match=VARIABLE) as caught:
        SharedSecret.from_environment(VARIABLE)
    assert text not in str(caught.value)


def test_a_secret_that_is_not_there(monkeypatch):
    monkeypatch.setenv(VARIABLE, "")
    assert SharedSecret.from_environment(VARIABLE) is None
    with pytest.raises(InputError, match="openssl rand"):
        required_secret(VARIABLE)
    monkeypatch.setenv(VARIABLE, NEW)
    assert required_secret(VARIABLE) == SharedSecret(NEW.encode())
    monkeypatch.setenv(VARIABLE + "_PREVIOUS", OLD)
    assert required_secret(VARIABLE) == BOTH


@pytest.mark.parametrize("tolerance_s", [0, 6 * 3600 + 1])
def test_a_tolerance_that_would_forget_deliveries_too_early(tolerance_s):
    with pytest.raises(InputError, match="tolerance"):
        GatewaySettings(tolerance_s=tolerance_s)
