import base64
import json
import os
import tracemalloc
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from schemas.errors import SourceRefusedError, SourceUnreachableError
from tasks.image_download import Fetched, ImageStore, about_images
from tasks.label_studio import client as label_studio_client
from tasks.label_studio.client import connected
from tests.servers import HOST, UNUSABLE_ANSWERS, answering, free_port, serving


class Handler(SimpleHTTPRequestHandler):
    def do_GET(self):
        self.server.seen.append(dict(self.headers))
        self.server.asked.append(self.path)
        if self.server.status:
            self.send_error(self.server.status)
        else:
            super().do_GET()

    def log_message(self, *args):
        """Not on the terminal."""


@pytest.fixture
def site(tmp_path):
    """A web server over `tmp_path/site` that knows when a file changed; with a `status` it is out of order."""
    (tmp_path / "site").mkdir()
    server = ThreadingHTTPServer((HOST, 0), lambda *args: Handler(*args, directory=str(tmp_path / "site")))
    server.seen, server.asked, server.status = [], [], None
    server.url = f"http://{HOST}:{server.server_port}"
    with serving(server):
        yield server


class Links(BaseHTTPRequestHandler):
    """Label Studio's links to the images of a storage: it redirects whoever has the token to a bucket, but not to the
    keys that begin with one of `unread`."""

    def do_GET(self):
        self.server.seen.append(self.path)
        asked = parse_qs(urlsplit(self.path).query)
        key = asked["d"][0] if "d" in asked else base64.urlsafe_b64decode(asked["fileuri"][0]).decode()
        if self.headers["Authorization"] != self.server.takes:
            self.send_error(401)
            return
        if key.startswith(self.server.unread):
            self.send_error(424)
            return
        self.send_response(303)
        self.send_header("Location", f"{self.server.bucket}/{key.removeprefix('s3://faces/')}")
        self.end_headers()

    def do_POST(self):
        """A new access token for a personal one, until that is revoked."""
        body = json.dumps({"access": "fresh"}).encode()
        self.send_response(200 if self.server.takes else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Not on the terminal."""


@pytest.fixture
def label_studio(site):
    """A server of such links, with `site` as the bucket."""
    server = ThreadingHTTPServer((HOST, 0), Links)
    server.seen, server.bucket, server.unread, server.takes = [], site.url, (), "Token secret"
    server.url = f"http://{HOST}:{server.server_port}"
    with serving(server):
        yield server


@pytest.fixture
def store(tmp_path):
    """Images beside a Label Studio that need not be up: these come from elsewhere."""
    with connected(f"http://{HOST}:{free_port()}", "secret") as connection:
        yield lambda: ImageStore(tmp_path / "images", connection)


def test_an_image_is_fetched_again_only_when_it_changed(site, store, tmp_path):
    original = tmp_path / "site/a.png"
    original.write_bytes(b"one")
    os.utime(original, (1_000_000, 1_000_000))
    url = f"{site.url}/a.png"
    first = store().fetch([url])[url]
    assert (first.downloaded, first.file.read_bytes(), first.file.suffix) == (True, b"one", ".png")
    assert not store().fetch([url])[url].downloaded
    original.write_bytes(b"two")
    again = store().fetch([url])[url]
    assert (again.downloaded, again.file, again.file.read_bytes()) == (True, first.file, b"two")


def test_a_damaged_copy_is_fetched_again(site, store, tmp_path):
    (tmp_path / "site/a.png").write_bytes(b"whole")
    url = f"{site.url}/a.png"
    copy = store().fetch([url])[url].file
    copy.write_bytes(b"who")
    assert store().fetch([url])[url].downloaded
    assert copy.read_bytes() == b"whole"


@pytest.mark.parametrize("status", [403, 404, 410, 500])
def test_an_image_that_was_taken_off_its_server_is_not_had_from_its_copy(site, store, tmp_path, monkeypatch, status):
    """Nor by a fetch that does not ask whether it has changed."""
    monkeypatch.setattr(label_studio_client, "PATIENCE_S", (0.0,) * 2)
    (tmp_path / "site/a.png").write_bytes(b"a")
    url = f"{site.url}/a.png"
    copy = store().fetch([url])[url].file
    site.status = status
    for ask_again in (True, False):
        assert store().fetch([url], ask_again=ask_again)[url] == Fetched(None, f"HTTP {status}")
        assert not copy.exists()
    site.status = None
    assert store().fetch([url], ask_again=False)[url].downloaded


def test_images_that_no_task_has_any_more_are_removed(site, store, tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / "site" / name).write_bytes(name.encode())
    a, b = f"{site.url}/a.png", f"{site.url}/b.png"
    fetched = store().fetch([a, b])
    store().fetch([b])
    assert [fetched[url].file.exists() for url in (a, b)] == [False, True]


def test_what_a_killed_fetch_left_is_removed(site, store, tmp_path):
    (tmp_path / "site/a.png").write_bytes(b"a")
    url = f"{site.url}/a.png"
    file = store().fetch([url])[url].file
    left = [file.with_name("0123.png"), file.with_name(f".{file.name}.7.tmp.png"), tmp_path / "images/ff/0.png"]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"of somebody who was forgotten meanwhile")
    store().fetch([url])
    assert file.is_file() and (tmp_path / "images/index.json").is_file()
    assert not any(path.exists() for path in left)


def test_values_may_come_one_by_one(site, store, tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / "site" / name).write_bytes(name.encode())
    a, b = f"{site.url}/a.png", f"{site.url}/b.png"
    store().fetch([a])
    fetched = store().fetch((url for url in (a, b)), ask_again=False)
    assert {url: one.downloaded for url, one in fetched.items()} == {a: False, b: True}


def test_the_token_goes_to_label_studio_only(site, store, tmp_path):
    (tmp_path / "site/a.png").write_bytes(b"a")
    store().fetch([f"{site.url}/a.png"])
    assert site.seen
    assert all("Authorization" not in headers for headers in site.seen)


@pytest.mark.parametrize(
    "value",
    [
        "{host}/studio/../grafana/x.png",
        "{host}/studio/%2e%2e/grafana/x.png",
        "/studio/data/upload/1/../../../../grafana/x.png",
        "/data/upload/1/%2e%2e/%2E./..%2F..%2Fgrafana/x.png",
    ],
)
def test_the_token_goes_to_nothing_else_that_label_studio_s_host_serves(site, tmp_path, value):
    for name in ("grafana/x.png", "studio/x.png"):
        (tmp_path / "site" / name).parent.mkdir()
        (tmp_path / "site" / name).write_bytes(b"x")
    with connected(f"{site.url}/studio", "secret") as connection:
        ImageStore(tmp_path / "images", connection).fetch([value.format(host=site.url), f"{site.url}/studio/x.png"])
    trusted = {path for path, headers in zip(site.asked, site.seen, strict=True) if "Authorization" in headers}
    assert trusted == {"/studio/x.png"} and len(site.asked) == 2


@pytest.mark.parametrize(
    "link",
    [
        "/tasks/7/resolve/?fileuri=czM6Ly9mYWNlcy9hLnBuZw==",
        "/projects/3/presign/?fileuri=czM6Ly9mYWNlcy9hLnBuZw==",
        "/data/local-files/?d=a.png",
    ],
)
@pytest.mark.parametrize(
    "shown_as", ["", "/studio", "https://labels.example.test", "http://labels.example.test:8080/studio"]
)
def test_an_image_of_a_storage_is_asked_of_label_studio_and_fetched_where_it_says(
    site, label_studio, tmp_path, shown_as, link
):
    (tmp_path / "site/a.png").write_bytes(b"a")
    value = f"{shown_as}{link}"
    with connected(label_studio.url, "secret") as connection:
        fetched, again = (ImageStore(tmp_path / "images", connection).fetch([value])[value] for _ in range(2))
    assert (fetched.downloaded, fetched.file.read_bytes()) == (True, b"a")
    assert (again.downloaded, again.file) == (False, fetched.file)
    assert label_studio.seen == [link, link]
    assert [("Authorization" in headers, "If-Modified-Since" in headers) for headers in site.seen] == [
        (False, False),
        (False, True),
    ]


def link(key):
    return f"/tasks/7/resolve/?fileuri={base64.urlsafe_b64encode(key.encode()).decode()}"


@pytest.fixture
def bucket(site, label_studio, tmp_path):
    """Images beside Label Studio, which reads them from `s3://faces`; that holds a to c."""
    for name in "abc":
        (tmp_path / f"site/{name}.png").write_bytes(name.encode())
    with connected(label_studio.url, "secret") as connection:
        yield lambda: ImageStore(tmp_path / "images", connection)


A, B = (link(f"s3://faces/{name}.png") for name in "ab")
C = link("s3://faces/c.png").replace("==", "%3D%3D")


def test_an_image_that_its_storage_has_no_more_is_missing(bucket, label_studio):
    """Label Studio says 424, but another image of the storage comes."""
    copy = bucket().fetch([A, B])[A].file
    label_studio.unread = ("s3://faces/a", "s3://faces/c")
    for ask_again in (True, False):
        fetched = bucket().fetch([A, B, C], ask_again=ask_again)
        assert [fetched[value].problem for value in (A, B, C)] == ["HTTP 424", None, "HTTP 424"]
        assert not copy.exists()


@pytest.mark.parametrize("ask_again", [True, False])
@pytest.mark.parametrize("others", [(), (link("s3://other/d.png"), "http://h/a.png?x=/tasks/7/resolve/")])
def test_a_storage_that_is_away_costs_no_image(bucket, site, label_studio, tmp_path, ask_again, others):
    copies = [one.file for one in bucket().fetch([A, B]).values()]
    (tmp_path / "site/s3:/other").mkdir(parents=True)
    (tmp_path / "site/s3:/other/d.png").write_bytes(b"d")
    others = [value.replace("http://h", site.url) for value in others]
    label_studio.unread = ("s3://faces",)
    with pytest.raises(SourceUnreachableError, match=r"can't read the storage s3://faces \(HTTP 424\); see"):
        bucket().fetch([A, B, C, *others], ask_again=ask_again)
    assert [copy.read_bytes() for copy in copies] == [b"a", b"b"]
    label_studio.unread = ()
    fetched = bucket().fetch([A, B, C], ask_again=False)
    assert {value: one.downloaded for value, one in fetched.items()} == {A: False, B: False, C: True}


@pytest.mark.parametrize(("token", "sent"), [("secret", "Token secret"), ("per.son.al", "Bearer fresh")])
def test_a_token_that_is_revoked_meanwhile_costs_no_image(bucket, label_studio, tmp_path, token, sent):
    label_studio.takes = sent
    with connected(label_studio.url, token) as connection:
        store = ImageStore(tmp_path / "images", connection)
        copy = store.fetch([A])[A].file
        label_studio.takes = None
        with pytest.raises(SourceRefusedError, match=r"refuses the token \(HTTP 401\)"):
            store.fetch([A, B])
    assert copy.read_bytes() == b"a"


def test_a_bucket_that_refuses_one_image_does_not_refuse_the_token(bucket, site):
    site.status = 401
    assert bucket().fetch([A])[A].problem == "HTTP 401"


def test_what_a_storage_gave_before_tells_that_it_is_there(bucket, label_studio):
    """Images that are looked at in batches, and not kept."""
    store, label_studio.unread = bucket(), ("s3://faces/b",)
    store.fetch([A])
    assert store.fetch([B])[B] == Fetched(None, "HTTP 424")


def test_what_can_t_be_had_is_said(site, store, tmp_path):
    here = tmp_path / "here.png"
    here.write_bytes(b"x")
    missing = f"{site.url}/missing.png"
    fetched = store().fetch([str(here), str(tmp_path / "no.png"), missing, "s3://bucket/a.png"])
    assert fetched[str(here)].file == here
    assert [fetched[value].problem for value in (str(tmp_path / "no.png"), missing, "s3://bucket/a.png")] == [
        "no such file",
        "HTTP 404",
        "no way to fetch s3:// from here",
    ]


@pytest.mark.parametrize("value", [base64.b64encode(bytes(6000)).decode(), "/" + "a" * 300, "file:///a\0.png"])
def test_a_text_that_is_no_file_is_the_fault_of_its_task(site, store, tmp_path, value):
    (tmp_path / "site/a.png").write_bytes(b"a")
    good = f"{site.url}/a.png"
    fetched = store().fetch([value, good])
    assert fetched[value].problem == "no such file"
    assert fetched[good].file.read_bytes() == b"a"


def test_why_images_are_missing_is_told_without_passwords_and_pictures(site, store, tmp_path):
    (tmp_path / "site/a.png").write_bytes(b"a")
    place = site.url.removeprefix("http://")
    picture = f"data:image/png;base64,{base64.b64encode(bytes(6000)).decode()}"
    addresses = [f"http://team:s3cret@{place}/b.png", f"http://team:s3cret@{place}/c.png?{'x' * 3000}"]
    found = about_images(store().fetch([f"{site.url}/a.png", *addresses, picture]))
    shown, *others = found["missing"].items()
    assert (found["wanted"], found["downloaded"]) == (4, 1)
    assert shown[0].startswith("data:image/png;base64,AAAA") and shown[1] == "no way to fetch data:// from here"
    assert others[0] == (f"{site.url}/b.png", "HTTP 404") and others[1][0].startswith(f"{site.url}/c.png?x")
    assert "s3cret" not in str(found) and len(str(found)) < 700


def test_a_long_suffix_is_no_suffix(site, store, tmp_path):
    (tmp_path / "site/a").write_bytes(b"a")
    url = f"{site.url}/a?version=1.{'x' * 300}"
    assert store().fetch([url])[url].file.suffix == ""


def test_a_value_that_is_no_address_is_the_fault_of_its_task(site, store, tmp_path):
    """Not of the pull: the other images come."""
    (tmp_path / "site/a.png").write_bytes(b"a")
    good = f"{site.url}/a.png"
    bad = ["http://h:abc/x.png", "http://[x/a.png", "http://a..b/x.png", "http:///x.png", "/data/upload/1/\a.png"]
    for ask_again in (True, False):
        fetched = store().fetch([*bad, good], ask_again=ask_again)
        assert {fetched[value].problem for value in bad} == {"is no address"}
        assert fetched[good].file.read_bytes() == b"a"
    assert store().fetch(["s3://[x/a.png"])["s3://[x/a.png"].problem == "no way to fetch s3:// from here"


@pytest.mark.parametrize("told", UNUSABLE_ANSWERS)
def test_an_answer_that_can_t_be_used_is_the_fault_of_its_task(site, store, tmp_path, told):
    (tmp_path / "site/a.png").write_bytes(b"a")
    good = f"{site.url}/a.png"
    with answering(*UNUSABLE_ANSWERS[told]) as server:
        bad = f"{server.url}/b.png"
        fetched = store().fetch([bad, good])
    assert fetched[bad].problem == f"can't be read: {told}"
    assert fetched[good].file.read_bytes() == b"a"
    assert server.asked.count("/b.png") == 1


@pytest.mark.parametrize("status", [503, 429, 408, None])
def test_a_server_that_is_of_no_use_is_named_without_its_password(site, store, monkeypatch, status):
    monkeypatch.setattr(label_studio_client, "PATIENCE_S", (0.0,))
    site.status = status
    place = site.url.removeprefix("http://") if status else f"{HOST}:{free_port()}"
    with pytest.raises(SourceUnreachableError) as error:
        store().fetch([f"http://team:s3cret@{place}/a.png"])
    told = f"HTTP {status}; see" if status else f"see that http://{place} is up"
    assert f"http://{place}/a.png" in str(error.value) and told in str(error.value)
    assert "s3cret" not in str(error.value)


def test_a_bucket_that_is_away_is_named_and_not_label_studio(bucket, label_studio, monkeypatch):
    monkeypatch.setattr(label_studio_client, "PATIENCE_S", (0.0,))
    label_studio.bucket = f"http://team:s3cret@{HOST}:{free_port()}"
    with pytest.raises(SourceUnreachableError) as error:
        bucket().fetch([A])
    away = label_studio.bucket.replace("team:s3cret@", "")
    assert f"see that {away} is up" in str(error.value) and "s3cret" not in str(error.value)


def test_few_of_many_images_wait_in_memory(store):
    nowhere = [f"/nowhere/{number}.png" for number in range(20_000)]
    tracemalloc.start()
    fetched = store().fetch(nowhere)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(fetched) == len(nowhere)
    assert peak - kept < 20e6, f"{(peak - kept) / len(nowhere):.0f} bytes for each"


def test_a_server_that_goes_away_keeps_what_has_arrived(site, store, tmp_path, monkeypatch):
    monkeypatch.setattr(label_studio_client, "PATIENCE_S", (0.0,))
    (tmp_path / "site/a.png").write_bytes(b"a")
    arrived, gone = f"{site.url}/a.png", f"http://localhost:{free_port()}/z.png"  # fetched in this order
    with pytest.raises(SourceUnreachableError, match=r"z.png can't be fetched .*what has arrived is kept"):
        store().fetch([arrived, gone])
    site.seen.clear()
    assert not store().fetch([arrived])[arrived].downloaded
    assert "If-Modified-Since" in site.seen[0]
