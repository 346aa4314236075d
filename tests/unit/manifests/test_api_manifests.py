"""The manifests of the API allow just what the code does."""

from __future__ import annotations

import json
from functools import cache

import yaml

from worker.api.runners import worker_environment
from worker.api.runners.kubernetes.cluster import RULES
from worker.settings.kubernetes import KubernetesSettings
from worker.settings.run import RunSettings
from worker.settings.shared import variable
from worker.task import target

K8S = worker_environment.SOURCE_TREE / "docker/k8s"


@cache
def manifests():
    files = (K8S / "api.yaml", K8S / "workers.yaml")
    return [each for file in files for each in yaml.safe_load_all(file.read_bytes())]


def one(kind, name):
    return next(
        each for each in manifests() if each["kind"] == kind and each["metadata"]["name"] == name
    )


def generated(name):
    """A ConfigMap that kustomize makes of files."""
    made = yaml.safe_load((K8S / "kustomization.yaml").read_bytes())["configMapGenerator"]
    return next(each for each in made if each["name"] == name)


def test_role():
    """The API may do what its runner does, and nothing else."""
    rules = one("Role", "api")["rules"]
    allowed = {
        (group, kind): frozenset(rule["verbs"])
        for rule in rules
        for group in rule["apiGroups"]
        for kind in rule["resources"]
    }
    assert allowed == RULES


def pod(name):
    return one("Deployment", name)["spec"]["template"]["spec"]


def test_hardened():
    """The API runs without root, capabilities, or a root file system to write to."""
    assert pod("api")["securityContext"]["runAsNonRoot"] is True
    container = pod("api")["containers"][0]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_settings_exist():
    """Every variable that a manifest sets is a setting of the program that it starts."""
    job = yaml.safe_load((K8S / "task/job.yaml").read_bytes())
    for container, kind in (
        (pod("api")["containers"][0], KubernetesSettings),
        (job["spec"]["template"]["spec"]["containers"][0], RunSettings),
    ):
        names = {each["name"] for each in container["env"]}
        assert names <= {variable(name) for name in kind.model_fields}


def test_the_job_template_is_the_one_of_a_single_task():
    """The API's template is the very file that a single task is run with."""
    volume = next(each for each in pod("api")["volumes"] if each["name"] == "template")
    assert generated(volume["configMap"]["name"])["files"] == ["task/job.yaml"]


def test_no_worker_reaches_the_api():
    """Ingress to the API is for its ingress controller; egress leads to no worker's port."""
    policy = one("NetworkPolicy", "api")["spec"]
    assert all("podSelector" not in way for each in policy["ingress"] for way in each["from"])
    ports = {port["port"] for each in policy["egress"] for port in each["ports"]}
    assert worker_environment.STREAM_PORT not in ports
    workers = json.dumps(one("NetworkPolicy", "workers")["spec"]["ingress"])
    assert '"app.kubernetes.io/name": "gateway"' in workers
    assert '"app.kubernetes.io/name": "api"' not in workers


def test_probes():
    """Probes ask paths that the API has, on a port that it has."""
    container = pod("api")["containers"][0]
    assert container["ports"] == [{"name": "http", "containerPort": 8000}]
    asked = {container[probe]["httpGet"]["path"] for probe in ("readinessProbe", "livenessProbe")}
    assert asked == {"/readyz", "/healthz"}


def test_endpoints_reach_the_workers():
    """The API's endpoints and its workers' are one ConfigMap, whose name is not hashed."""
    assert generated("endpoints")["options"] == {"disableNameSuffixHash": True}
    for file in generated("endpoints")["files"]:
        target.function(str(K8S / file))
    assert {"name": "endpoints", "configMap": {"name": "endpoints"}} in pod("api")["volumes"]
    job = yaml.safe_load((K8S / "task/job.yaml").read_bytes())
    volume = {"name": "endpoints", "configMap": {"name": "endpoints", "optional": True}}
    assert volume in job["spec"]["template"]["spec"]["volumes"]
