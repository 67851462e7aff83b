"""docs/more-than-one-machine.md, done word for word, with a lake in a real bucket."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.appliance import Appliance
from tests.lakes import Place
from tests.pages import check
from tests.peers import eventually


def test_every_command_prints_what_is_shown(bucket: Place, folder: Path) -> None:
    settings = {"SESSIONS_LAKE": bucket.url, "SESSIONS_SHARD": "berlin", "SESSIONS_LAKE_EVERY": "1"}
    with Appliance(folder, settings | bucket.environment) as appliance:
        for said in ("a", "b"):
            httpx.post(f"{appliance.url}/api/actions/s", json={"type": "note", "text": said}).raise_for_status()
        httpx.post(f"{appliance.url}/api/sessions/s/finalize", json={}).raise_for_status()
        eventually(lambda: httpx.get(f"{appliance.url}/health").json()["lake"]["sealed"] == 4)
        check("docs/more-than-one-machine.md", appliance, settings)
