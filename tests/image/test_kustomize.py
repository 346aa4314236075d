"""The manifests as `kubectl apply -k` sends them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from required import require

K8S = Path(__file__).parents[2] / "docker" / "k8s"
FOLDERS = [path.parent for path in sorted(K8S.rglob("kustomization.yaml"))]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_kustomize(folder):
    """Each folder builds, into documents that the current Kubernetes takes, in one namespace."""
    require("kubectl", install="install kubectl")
    built = subprocess.run(
        ["kubectl", "kustomize", folder], check=False, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    documents = list(yaml.safe_load_all(built.stdout))
    assert documents
    for document in documents:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
        if document["kind"] != "Namespace":
            assert document["metadata"]["namespace"] == "worker"


def test_one_task_id_names_all_objects():
    """The one id that a user sets names the Job, the Pod, its Secret and its stream."""
    require("kubectl", install="install kubectl")
    built = subprocess.check_output(["kubectl", "kustomize", K8S / "task"], text=True)
    documents = {document["kind"]: document for document in yaml.safe_load_all(built)}
    task_id = documents["Job"]["metadata"]["name"]
    pod = documents["Job"]["spec"]["template"]["spec"]
    env = {variable["name"]: variable for variable in pod["containers"][0]["env"]}
    assert env["WORKER_TASK_ID"]["value"] == task_id
    assert env["WORKER_STREAM_KEY"]["valueFrom"]["secretKeyRef"]["name"] == task_id
    assert documents["Secret"]["metadata"]["name"] == task_id
    assert (pod["hostname"], pod["subdomain"]) == (task_id, "workers")
