import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.urls import without_credentials

HOSTS = ["mlflow.test", "h", "127.0.0.1", "[::1]"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://team:s3cret@mlflow.test:5000/api", "https://mlflow.test:5000/api"),
        ("https://team:s3/cr@t@mlflow.test", "https://mlflow.test"),
        ("http://team:12/3@h:80/api", "http://h:80/api"),
        ("http://team:12/3@mlflow.test/api", "http://mlflow.test/api"),
        ("http://team:12/3@[::1]:80/api", "http://[::1]:80/api"),
        ("http://team:s3cret@[::1]:80/api", "http://[::1]:80/api"),
        ("postgresql://team@db/mlflow", "postgresql://db/mlflow"),
        (
            "API request to http://team:s3cret@here/api failed, see http://there",
            "API request to http://here/api failed, see http://there",
        ),
    ],
)
def test_users_and_passwords_are_not_shown(text, shown):
    assert without_credentials(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////data/mlflow.db",
        "http://mlflow.test/a",
        "http://mlflow.test/a//@team",
        "http://images.test/face@2x.png",
        "http://images.test:8080/face@2x.png",
        "http://images.test:8080/@team/react@18.2.0/face.png",
        "http://[::1]:8080/face@2x.png",
        "http://[fe80::1%eth0]/face@2x.png",
        "GET http://[::1] by team@mlflow.test",
        "http://team:12/3@h/api",
    ],
)
def test_what_may_be_no_user_stays(text):
    assert without_credentials(text) == text


@given(
    user=st.text("abc-.", max_size=4),
    password=st.text("a1/@:?#[]%.é", max_size=8),
    host=st.sampled_from(HOSTS),
    port=st.integers(1, 65535),
    path=st.text("a1/:?#[].", max_size=6),
)
def test_no_password_is_shown_before_a_host_with_a_port(user, password, host, port, path):
    place = f"{host}:{port}/{path}"
    assert without_credentials(f"see http://{user}:{password}@{place} now") == f"see http://{place} now"


@given(
    host=st.sampled_from(HOSTS),
    port=st.none() | st.integers(1, 65535),
    folder=st.text("ab@1", min_size=1, max_size=6),
    name=st.text("ab@1./", max_size=6),
)
def test_a_path_keeps_its_host(host, port, folder, name):
    text = f"http://{host}{'' if port is None else f':{port}'}/{folder}/{name}"
    assert without_credentials(text) == text
