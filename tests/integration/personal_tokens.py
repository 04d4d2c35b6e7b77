"""Personal access tokens of a Label Studio, and the short-lived access tokens that are got with them."""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any

import httpx


def personal_token(url: str, user: str, password: str) -> str:
    """As a user makes one in the browser: log in, then ask for it."""
    with httpx.Client(base_url=url, follow_redirects=True, timeout=60) as browser:
        browser.get("/user/login/")
        form = {"email": user, "password": password, "csrfmiddlewaretoken": browser.cookies["csrftoken"]}
        browser.post("/user/login/", data=form, headers={"Referer": url})
        headers = {"X-CSRFToken": browser.cookies["csrftoken"], "Referer": url}
        both = {"api_tokens_enabled": True, "legacy_api_tokens_enabled": True}
        browser.post("/api/jwt/settings", json=both, headers=headers).raise_for_status()
        reply = browser.post("/api/token/", headers=headers)
        reply.raise_for_status()
        return reply.json()["token"]


def revoke(url: str, token: str, legacy_token: str) -> None:
    """As a user who has lost it."""
    headers = {"Authorization": f"Token {legacy_token}"}
    reply = httpx.post(f"{url}/api/token/blacklist/", json={"refresh": token}, headers=headers, timeout=60)
    reply.raise_for_status()


def expired(access_token: str, server_secret: str) -> str:
    """The same access token as it will be in five minutes, signed by the server's own key."""
    head, payload, _ = access_token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    signed = f"{head}.{_encode(json.dumps(claims | {'exp': claims['iat']}).encode())}"
    return f"{signed}.{_encode(hmac.digest(server_secret.encode(), signed.encode(), 'sha256'))}"


def _encode(value: Any) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
