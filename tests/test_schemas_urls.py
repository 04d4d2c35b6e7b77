import pytest

from schemas.urls import without_credentials


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://team:s3cret@mlflow.test:5000/api", "https://mlflow.test:5000/api"),
        ("https://team:s3/cr@t@mlflow.test", "https://mlflow.test"),
        ("postgresql://team@db/mlflow", "postgresql://db/mlflow"),
        (
            "API request to http://team:s3cret@here/api failed, see http://there",
            "API request to http://here/api failed, see http://there",
        ),
        ("sqlite:////data/mlflow.db", "sqlite:////data/mlflow.db"),
        ("http://mlflow.test/a", "http://mlflow.test/a"),
        ("http://images.test/face@2x.png", "http://images.test/face@2x.png"),
        ("http://images.test:8080/face@2x.png", "http://images.test:8080/face@2x.png"),
    ],
)
def test_users_and_passwords_are_not_shown(text, shown):
    assert without_credentials(text) == shown
