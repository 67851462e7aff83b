"""docs/kubernetes.yaml is what Kubernetes takes, by its own schemas, and gives the store what compose.yaml gives it."""

from __future__ import annotations

import re
from typing import Any

import kubernetes_validate
import pytest
import yaml

from sessionstore.settings import TABLE
from tests.appliance import REPOSITORY

Json = dict[str, Any]

DOCUMENTS: list[Json] = list(yaml.safe_load_all((REPOSITORY / "docs/kubernetes.yaml").read_text()))
BY_KIND = {document["kind"]: document for document in DOCUMENTS}
POD: Json = BY_KIND["StatefulSet"]["spec"]["template"]["spec"]
STORE: Json = POD["containers"][0]
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


@pytest.mark.parametrize("kind", BY_KIND)
def test_it_holds_by_the_strict_schema(kind: str) -> None:
    kubernetes_validate.validate(BY_KIND[kind], "1.37", strict=True)


def test_a_field_that_does_not_exist_is_found() -> None:
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**BY_KIND["Service"], "spec": {"prots": []}}, "1.37", strict=True)


def test_one_process_owns_the_folder() -> None:
    assert BY_KIND["StatefulSet"]["spec"]["replicas"] == 1
    assert BY_KIND["StatefulSet"]["spec"]["volumeClaimTemplates"][0]["spec"]["accessModes"] == ["ReadWriteOnce"]


def test_all_of_it_is_of_one_store() -> None:
    labels = BY_KIND["StatefulSet"]["spec"]["template"]["metadata"]["labels"]
    assert BY_KIND["Service"]["spec"]["selector"] == labels
    assert BY_KIND["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    keys = {need["valueFrom"]["secretKeyRef"]["key"] for need in STORE["env"] if "valueFrom" in need}
    assert keys == BY_KIND["Secret"]["stringData"].keys() == {"admin", "read", "ingest"}


def test_its_settings_and_its_user_are_known() -> None:
    assert {need["name"] for need in STORE["env"]} <= {setting.variable for setting in TABLE.values()}
    dockerfile = (REPOSITORY / "Dockerfile").read_text()
    assert re.search(rf"^USER {POD['securityContext']['runAsUser']}:", dockerfile, re.MULTILINE)
    (mount,) = (mount["mountPath"] for mount in STORE["volumeMounts"] if mount["name"] == "data")
    assert f"VOLUME {mount}\n" in dockerfile


@pytest.mark.parametrize("probe", PROBES)
def test_a_probe_asks_what_the_server_answers_without_a_token(probe: str) -> None:
    asked = STORE[probe]["httpGet"]
    assert asked["path"] in ("/health", "/ready")
    assert asked["httpHeaders"] == [{"name": "Host", "value": "localhost"}]


def test_it_has_no_right_that_it_does_not_need() -> None:
    rights = STORE["securityContext"]
    assert rights["readOnlyRootFilesystem"] and not rights["allowPrivilegeEscalation"]
    assert rights["capabilities"] == {"drop": ["ALL"]}
    assert POD["automountServiceAccountToken"] is False
