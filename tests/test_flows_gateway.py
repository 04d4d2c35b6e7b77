"""The webhook gateway as a process, over real HTTP: what it takes, what it refuses, and what it survives."""

import asyncio
import json
import socket
import sqlite3
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.entry.cli import main
from flows.entry.gateway_app import build_app
from tasks.gateway.journal import FILE, Journal, read_status
from tasks.gateway.prefect_events import prefect_api_url
from tasks.gateway.settings import (
    LABEL_STUDIO_SECRET_ENV,
    MLFLOW_SECRET_ENV,
    SECRET_HEADER,
    GatewaySettings,
    SharedSecret,
)
from tests.gateways import (
    LABEL_STUDIO_PATH,
    MLFLOW_PATH,
    MLFLOW_SECRET,
    NOBODY,
    PREVIOUS_SECRET,
    SECRET,
    annotation_event,
    registry_event,
    running_gateway,
    signed,
)
from tests.servers import HOST, free_port

MIB = 1 << 20
WRONG_SECRET = "a-wrong-secret-that-leaks-nowhere"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """One for the tests that leave it as it is; its Prefect is down."""
    with running_gateway(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture
def refused(gateway):
    """Checks that a delivery is refused with `status`, counted under `reason`, and not kept."""

    def check(send, status, reason, *, source="label-studio"):
        labels = {"source": source, "action": "none", "outcome": reason}
        counted = gateway.metric("fpenet_gateway_deliveries_total", **labels)
        pending = read_status(gateway.journal).pending
        answer = send()
        assert answer.status_code == status, answer.text
        assert gateway.metric("fpenet_gateway_deliveries_total", **labels) == counted + 1
        assert read_status(gateway.journal).pending == pending
        return answer.json()["error"]

    return check


def test_a_delivery_is_on_disk_when_it_is_answered(gateway):
    before = read_status(gateway.journal).pending
    answer = gateway.label_studio(annotation_event(5))
    assert answer.status_code == 202
    assert answer.json()["entry"] > 0
    assert read_status(gateway.journal).pending == before + 1


def test_the_previous_secret_is_taken_and_counted(gateway):
    counted = gateway.metric("fpenet_gateway_previous_secret_total", source="label-studio")
    assert gateway.label_studio(annotation_event(), secret=PREVIOUS_SECRET).status_code == 202
    assert gateway.metric("fpenet_gateway_previous_secret_total", source="label-studio") == counted + 1


@pytest.mark.parametrize(
    ("headers", "reason"),
    [({}, "no-secret"), ({SECRET_HEADER: ""}, "no-secret"), ({SECRET_HEADER: WRONG_SECRET}, "wrong-secret")],
)
def test_without_the_secret_nothing_is_taken(gateway, refused, headers, reason):
    body = json.dumps(annotation_event()).encode()
    refused(lambda: gateway.post(LABEL_STUDIO_PATH, body, headers), 401, reason)


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 400, "malformed"),
        (b'{"action": ', 400, "malformed"),
        (b"[1, 2]", 422, "not-understood"),
        ({"action": "ANNOTATION_CREATED"}, 422, "not-understood"),
        (annotation_event(project={"id": 7}), 422, "not-understood"),
    ],
)
def test_what_can_t_be_understood_is_refused_with_words(gateway, refused, body, status, reason):
    assert refused(lambda: gateway.label_studio(body), status, reason)


def test_ids_as_strings_an_unknown_event_and_a_project_that_is_gone_are_hints(gateway):
    assert gateway.label_studio(annotation_event("12", project="7")).status_code == 202
    labels = {"source": "label-studio", "action": "other", "outcome": "kept"}
    counted = gateway.metric("fpenet_gateway_deliveries_total", **labels)
    assert gateway.label_studio(annotation_event(action="A_NEW_ONE")).status_code == 202
    assert gateway.metric("fpenet_gateway_deliveries_total", **labels) == counted + 1
    assert gateway.label_studio({"action": "PROJECT_DELETED", "project": {"id": 99}}).status_code == 202


def test_without_a_payload_the_project_is_in_the_url(gateway):
    assert gateway.label_studio({"action": "TASKS_CREATED"}, query="?project=9").status_code == 202


def test_mlflow_s_delivery_is_taken_once(gateway, refused):
    event = registry_event()
    assert gateway.mlflow(event, delivery="once").status_code == 202
    refused(lambda: gateway.mlflow(event, delivery="once"), 409, "repeated", source="mlflow")
    assert gateway.mlflow(event, delivery="twice").status_code == 202


@pytest.mark.parametrize(
    ("stamp", "reason"),
    [
        ({"secret": WRONG_SECRET}, "wrong-secret"),
        ({"secret": SECRET}, "wrong-secret"),
        ({"late_s": 310}, "stale"),
        ({"late_s": -310}, "stale"),
        ({"delivery": "a.b"}, "no-secret"),
    ],
)
def test_what_mlflow_did_not_sign_just_now_is_refused(gateway, refused, stamp, reason):
    refused(lambda: gateway.mlflow(registry_event(), **stamp), 401, reason, source="mlflow")


def test_a_delivery_that_was_changed_on_its_way(gateway, refused):
    headers = signed(json.dumps(registry_event(version="3")).encode(), delivery="changed")
    body = json.dumps(registry_event(version="4")).encode()
    refused(lambda: gateway.post(MLFLOW_PATH, body, headers), 401, "wrong-secret", source="mlflow")


def test_clocks_that_differ_within_the_tolerance(gateway):
    for late_s in (-290, 290):
        assert gateway.mlflow(registry_event(), delivery=f"late{late_s}", late_s=late_s).status_code == 202


def test_mlflow_s_events_about_prompts_are_no_hints(gateway):
    before = read_status(gateway.journal).pending
    assert gateway.mlflow(registry_event("prompt"), delivery="prompt").json() == {"entry": None}
    assert read_status(gateway.journal).pending == before


def resident_kib(process):
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("path", [LABEL_STUDIO_PATH, MLFLOW_PATH])
def test_50_mb_are_refused_and_not_read_into_memory(gateway, path, declared):
    """With a Content-Length, and in chunks, which do not say how many will come."""
    before = resident_kib(gateway.process)
    headers = {SECRET_HEADER: SECRET} | signed(b"", delivery="large")
    if declared:
        headers["Content-Length"] = str(50 * MIB)
    pieces = (b"x" * MIB for _ in range(50))
    answer = httpx.post(f"{gateway.url}{path}", content=pieces, headers=headers, timeout=60)
    assert answer.status_code == 413
    assert resident_kib(gateway.process) - before < 25 * 1024, "the limit and what the server reads ahead"


def raw(gateway, data: bytes) -> bytes:
    """Send as it is, and all that comes back until the gateway closes the connection."""
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(data)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_a_head_without_an_end_and_one_that_is_no_http(gateway):
    assert raw(gateway, b"POST / HTTP/1.1\r\nX: " + b"x" * 100_000).startswith(b"HTTP/1.1 400")
    assert raw(gateway, b"\x16\x03\x01\x00\r\n\r\n").startswith(b"HTTP/1.1 400")


def test_who_only_opens_connections_does_not_keep_out_the_others(gateway):
    """More than there are, from another loopback address."""
    host, port = gateway.url.removeprefix("http://").split(":")
    with ExitStack() as connections:
        for _ in range(GatewaySettings().connections + 10):
            idle = socket.create_connection((host, int(port)), timeout=60, source_address=("127.0.0.2", 0))
            connections.enter_context(idle)
        assert idle.recv(1) == b"", "the last of them was closed at once"
        assert gateway.label_studio(annotation_event()).status_code == 202


def test_other_paths_and_methods(gateway):
    assert gateway.get(LABEL_STUDIO_PATH).status_code == 405
    for path in ("/", "/docs", "/openapi.json", f"{LABEL_STUDIO_PATH}/"):
        assert gateway.post(path, b"", {}).status_code == 404


def test_health_tells_that_prefect_is_away_and_that_deliveries_are_kept(gateway):
    answer = gateway.get("/healthz")
    assert answer.status_code == 200
    told = answer.json()
    assert (told["status"], told["journal"]) == ("degraded", "ok")
    assert told["prefect"] != "ok"


def test_a_gateway_whose_forwarder_has_ended_says_so_and_lets_the_journal_go_when_it_ends(tmp_path):
    app = build_app(Journal(tmp_path), GatewaySettings(), label_studio=SharedSecret(SECRET.encode()), mlflow=None)

    async def health():
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://gateway") as client,
        ):
            assert (await client.get("/healthz")).status_code == 200
            app.state.gateway._forwarding.cancel()
            await asyncio.wait([app.state.gateway._forwarding])
            return await client.get("/healthz")

    with temporary_settings({PREFECT_API_URL: NOBODY}):
        answer = asyncio.run(health())
    assert (answer.status_code, answer.json()["status"]) == (503, "failing")
    assert "the forwarder has ended" in answer.json()["journal"]
    Journal(tmp_path).close()


def test_asking_an_idle_gateway_for_its_health_often_writes_seldom(tmp_path):
    with running_gateway(tmp_path) as gateway, closing(sqlite3.connect(gateway.journal / FILE)) as journal:
        probed = set()
        for _ in range(10):
            assert gateway.get("/healthz").status_code == 200
            probed |= set(journal.execute("SELECT value FROM about WHERE key = 'probed'"))
    assert 1 <= len(probed) <= 3, "once, or once more for each ten seconds that it took"


def test_metrics_count_times_and_what_waits(gateway):
    gateway.label_studio(annotation_event())
    assert gateway.metric("fpenet_gateway_backlog") == read_status(gateway.journal).pending
    assert gateway.metric("fpenet_gateway_answer_seconds_count", source="label-studio") > 0
    assert gateway.metric("fpenet_gateway_commit_seconds_count") > 0


def test_nothing_of_a_payload_and_no_secret_is_left_anywhere(gateway):
    """In the log, in the journal's files, in the metrics: grep them."""
    gateway.label_studio(annotation_event())
    gateway.label_studio(annotation_event(), secret=WRONG_SECRET)
    gateway.mlflow(registry_event(value="because of Mr Smith"), delivery="grep")
    gateway.mlflow(registry_event(), secret=WRONG_SECRET)
    left = [path.read_bytes() for path in (gateway.log, *sorted(gateway.journal.iterdir()))]
    left.append(gateway.get("/metrics").content)
    assert any(b"ANNOTATION_CREATED" in data for data in left)
    held = (
        SECRET,
        PREVIOUS_SECRET,
        MLFLOW_SECRET,
        WRONG_SECRET,
        "invite-token",
        "<View/>",
        "faces of people",
        "Smith",
    )
    for text in held:
        assert not any(text.encode() in data for data in left), text


def test_slow_senders_are_cut_off_and_others_served(tmp_path):
    """A connection that says nothing, a head that never ends, a body that never comes."""
    head = f"POST {LABEL_STUDIO_PATH} HTTP/1.1\r\nHost: g\r\n{SECRET_HEADER}: {SECRET}\r\nContent-Length: 9\r\n\r\n"
    slow = (b"", b"POST / HT", head.encode() + b"{")
    with running_gateway(tmp_path, "--timeout-s", "1") as gateway, ThreadPoolExecutor(3) as senders:
        waiting = [senders.submit(raw, gateway, data) for data in slow]
        assert gateway.label_studio(annotation_event()).status_code == 202
        nothing, half, body = (future.result() for future in waiting)
    assert (nothing, half) == (b"", b"")
    assert body.startswith(b"HTTP/1.1 408")


def test_a_flood_of_wrong_secrets_does_not_keep_out_who_has_the_right_one(tmp_path):
    with running_gateway(tmp_path, "--unknown-rate", "3/hour", "--client-rate", "5/hour") as gateway:
        answers = [gateway.label_studio(annotation_event(), secret=WRONG_SECRET) for _ in range(6)]
        assert Counter(answer.status_code for answer in answers) == {401: 3, 429: 3}
        assert answers[-1].headers["Retry-After"] == "10"
        known = [gateway.label_studio(annotation_event()).status_code for _ in range(6)]
        assert Counter(known) == {202: 5, 429: 1}, "of a known sender too there can be too much"
        assert gateway.get("/healthz").status_code == 200
        unsigned = [gateway.mlflow(registry_event(), delivery=f"d{n}", secret=WRONG_SECRET) for n in range(4)]
        assert Counter(answer.status_code for answer in unsigned) == {401: 3, 429: 1}
        assert gateway.log.read_text().count("wrong-secret") == 6, "a flood does not fill the log"


def hammer_until_killed(gateway, acknowledged, *, first, answers):
    """Eight senders at once; after so many `answers` the process is killed, with deliveries under way."""
    killed = threading.Event()
    wanted = len(acknowledged) + answers

    def hammer(sender):
        for project in range(first + sender, first + 10**6, 8):
            try:
                answer = gateway.label_studio(annotation_event(project=project))
            except httpx.TransportError:
                assert killed.is_set()
                return
            acknowledged[answer.json()["entry"]] = project
            if len(acknowledged) >= wanted:
                killed.set()
                gateway.kill()

    with ThreadPoolExecutor(8) as senders:
        list(senders.map(hammer, range(8)))


def test_killed_in_the_middle_nothing_acknowledged_is_lost(tmp_path):
    acknowledged: dict[int, int] = {}
    registry = []
    for attempt in range(2):
        with running_gateway(tmp_path) as gateway:
            registry.append(gateway.mlflow(registry_event(), delivery="known").status_code)
            hammer_until_killed(gateway, acknowledged, first=1 + attempt * 10**6, answers=150)
    assert registry == [202, 409], "a delivery id outlives the process"
    assert len(acknowledged) >= 300
    with closing(sqlite3.connect(tmp_path / "journal" / FILE)) as journal:
        rows = journal.execute("SELECT id, subject FROM entries WHERE source = 'label-studio'")
        kept = {number: int(project) for number, project in rows}
    assert {number: kept.get(number) for number in acknowledged} == acknowledged


def test_a_journal_that_can_t_be_written(gateway):
    """Nothing is acknowledged, health says so, and it goes on when it can: here somebody holds the file."""
    with closing(sqlite3.connect(gateway.journal / FILE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert gateway.label_studio(annotation_event()).status_code == 503
        answer = gateway.get("/healthz")
        assert (answer.status_code, answer.json()["status"]) == (503, "failing")
    assert gateway.get("/healthz").status_code == 200
    assert gateway.label_studio(annotation_event()).status_code == 202
    labels = {"source": "label-studio", "action": "none"}
    assert gateway.metric("fpenet_gateway_deliveries_total", outcome="not-kept", **labels) == 1


SPOOFED = {"X-Forwarded-For": "203.0.113.9"}


def test_nobody_s_word_is_taken_for_where_it_comes_from(gateway):
    gateway.post(LABEL_STUDIO_PATH, b"{}", SPOOFED)
    assert "203.0.113.9" not in gateway.log.read_text()


def test_a_proxy_that_is_named_is_believed_and_mlflow_without_a_secret_is_not(tmp_path):
    with running_gateway(tmp_path, "--trusted-proxy", HOST, environment={MLFLOW_SECRET_ENV: ""}) as gateway:
        gateway.post(LABEL_STUDIO_PATH, b"{}", SPOOFED)
        assert "refused from 203.0.113.9: no-secret" in gateway.log.read_text()
        assert gateway.mlflow(registry_event()).status_code == 404
        assert f"{MLFLOW_SECRET_ENV} is not set" in gateway.log.read_text()


@pytest.fixture
def serve(monkeypatch, tmp_path):
    """Runs the command in this process; its exit code."""
    monkeypatch.setenv(LABEL_STUDIO_SECRET_ENV, SECRET)

    def run(*options, prefect=NOBODY):
        with temporary_settings({PREFECT_API_URL: prefect}):
            return main(["gateway", "serve", "--journal", str(tmp_path / "journal"), *map(str, options)])

    return run


def test_it_does_not_start_without_a_secret(serve, monkeypatch, capsys, tmp_path):
    monkeypatch.delenv(LABEL_STUDIO_SECRET_ENV)
    assert serve() == 2
    assert LABEL_STUDIO_SECRET_ENV in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_it_does_not_start_on_a_port_that_is_taken(serve, capsys):
    with socket.create_server((HOST, 0)) as taken:
        assert serve("--port", taken.getsockname()[1]) == 2
    assert "choose another --port" in capsys.readouterr().err


def test_it_does_not_start_with_a_rate_that_is_none(serve, capsys):
    assert serve("--client-rate", "many") == 2
    assert "'many' is no rate" in capsys.readouterr().err


def test_it_does_not_start_with_nobody_to_wake(serve, capsys):
    assert serve(prefect=None) == 2
    assert "PREFECT_API_URL is not set" in capsys.readouterr().err


def test_the_address_that_is_told_has_no_password():
    with temporary_settings({PREFECT_API_URL: "https://me:hidden@prefect.test:4200/api"}):
        assert prefect_api_url() == "https://prefect.test:4200/api"


def test_it_does_not_start_on_a_journal_that_another_one_has(serve, capsys, tmp_path):
    with closing(Journal(tmp_path / "journal")):
        assert serve("--port", free_port()) == 2
    assert "another gateway" in capsys.readouterr().err


def test_the_status_of_a_workspace(tmp_path, capsys):
    assert main(["gateway", "status", "--workspace", str(tmp_path)]) == 2
    assert "no journal there" in capsys.readouterr().err
    Journal(tmp_path / "gateway").close()
    assert main(["gateway", "status", "--workspace", str(tmp_path)]) == 0
    assert "pending: 0" in capsys.readouterr().out


def test_help_names_what_has_to_be_set(capsys):
    with pytest.raises(SystemExit):
        main(["gateway", "serve", "--help"])
    told = capsys.readouterr().out
    for text in (LABEL_STUDIO_SECRET_ENV, MLFLOW_SECRET_ENV, "PREFECT_API_URL", SECRET_HEADER, LABEL_STUDIO_PATH):
        assert text in told
