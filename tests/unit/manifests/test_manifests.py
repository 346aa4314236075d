"""The manifests of Kubernetes hold to what the code does: exit codes, deadlines, ports, probes."""

from __future__ import annotations

import warnings
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from worker import outcome
from worker.process import supervisord
from worker.session import session
from worker.settings.run import RunSettings
from worker.stream.port.triage import ANSWERED_PATHS
from worker.task import log, process

K8S = Path(__file__).parents[3] / "docker" / "k8s"
MANIFESTS = sorted(path for path in K8S.rglob("*.yaml") if path.name != "kustomization.yaml")


def documents(path):
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def named(kind, name):
    (found,) = (
        document
        for path in MANIFESTS
        for document in documents(path)
        if (document["kind"], document["metadata"]["name"]) == (kind, name)
    )
    return found


@pytest.fixture
def job():
    return named("Job", "task")["spec"]


@pytest.fixture
def pod(job):
    return job["template"]["spec"]


@pytest.fixture
def container(pod):
    (container,) = pod["containers"]
    return container


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_valid(path):
    """Each document is valid for the current Kubernetes, without unknown fields."""
    for document in documents(path):
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of what is deprecated too
            kubernetes_validate.validate(
                document, kubernetes_validate.latest_version(), strict=True
            )


def verdict(job, exit_code, *, disrupted=False):
    """What the Job does with a Pod that ended so: the first rule that matches."""
    for rule in job["podFailurePolicy"]["rules"]:
        if "onPodConditions" in rule:
            if disrupted:
                assert rule["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
                return rule["action"]
            continue
        codes = rule["onExitCodes"]
        assert codes["containerName"] == "worker"
        if (exit_code in codes["values"]) == (codes["operator"] == "In"):
            return rule["action"]
    return "Count"


def test_exit_codes(job):
    """A task's own end fails the Job; only a broken display or a lost node is tried again."""
    assert verdict(job, outcome.EXIT_SESSION_LOST) == "Count"
    assert verdict(job, outcome.EXIT_SIGTERM, disrupted=True) == "Ignore"
    own = {getattr(outcome, name) for name in dir(outcome) if name.startswith("EXIT_")}
    own -= {outcome.EXIT_SUCCESS, outcome.EXIT_SESSION_LOST}
    for code in own | {2, 7, 63, 69, 71, 100, 137, 255}:
        assert verdict(job, code) == "FailJob", code
    assert job["backoffLimit"] >= 1
    assert job["template"]["spec"]["restartPolicy"] == "Never"


def longest_end_s():
    """From the signal to the exit when everything that can hang hangs, by the code's own deadlines.

    Its steps are those of `session`: what runs side by side there is a `max` here.
    """
    rpc_s = stop_s = supervisord.STOP_TIMEOUT_S
    viewers_s = session._VIEWERS_GONE_S
    task_s = process.GRACE_S + log.END_TIMEOUT_S + session.SWEEP_LIMIT_S
    xvfb_s = websockify_s = x11vnc_s = rpc_s + stop_s
    supervisord_s = rpc_s + stop_s + rpc_s + stop_s
    first_s = max(task_s, x11vnc_s)
    return viewers_s + first_s + xvfb_s + websockify_s + supervisord_s + session.SWEEP_LIMIT_S


def test_grace_period(pod):
    """The kubelet waits longer than the worker can take, its default of 30 s being enough."""
    assert longest_end_s() < pod["terminationGracePeriodSeconds"] <= 30


def test_deadline(job, pod, container):
    """The task's own timeout comes before the Job's."""
    (timeout_s,) = (
        float(variable["value"])
        for variable in container["env"]
        if variable["name"] == "WORKER_TIMEOUT_S"
    )
    start_s = session.START_TIMEOUT_S
    ends_s = start_s + timeout_s + pod["terminationGracePeriodSeconds"]
    assert ends_s < job["activeDeadlineSeconds"]


def test_variables(container):
    """Every variable is a setting."""
    known = {f"WORKER_{name.upper()}" for name in RunSettings.model_fields}
    assert {variable["name"] for variable in container["env"]} <= known


def test_ports(container):
    """The port is the one that the worker listens on, for probes, Service and policy alike."""
    port = RunSettings.model_fields["port"].default
    assert container["ports"] == [{"name": "stream", "containerPort": port}]
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "stream"}
    (served,) = named("Service", "workers")["spec"]["ports"]
    assert served["port"] == port


def test_probes(container):
    """The stream's server answers them, so none may end the task."""
    assert container["readinessProbe"]["httpGet"]["path"] in ANSWERED_PATHS
    assert not {"livenessProbe", "startupProbe"} & set(container)


def test_hardened(pod, container):
    """The Pod holds no privilege, no token of the cluster's, and writes to its volumes alone."""
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"]["type"] == "Localhost"
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"requests", "limits"} <= set(container["resources"])
    (shm,) = (volume for volume in pod["volumes"] if volume["name"] == "shm")
    assert shm["emptyDir"]["medium"] == "Memory"
    assert {"name": "shm", "mountPath": "/dev/shm"} in container["volumeMounts"]


def test_only_the_gateway_reaches_a_worker(job):
    """Only the gateway reaches 6080; another worker does not, and not over the gateway's label."""
    policy = named("NetworkPolicy", "workers")["spec"]
    labels = job["template"]["metadata"]["labels"]
    assert labels.items() >= policy["podSelector"]["matchLabels"].items()
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    gateway = named("Deployment", "gateway")["spec"]["template"]["metadata"]["labels"]
    assert policy["ingress"] == [
        {"from": [{"podSelector": {"matchLabels": gateway}}], "ports": [{"port": 6080}]}
    ]
    assert gateway != labels


@pytest.mark.parametrize(
    "inside",
    ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16"],
)
def test_a_worker_reaches_the_internet_only(inside):
    """The pages that a task visits get the internet: no Pod, no Service, no metadata server."""
    egress = named("NetworkPolicy", "workers")["spec"]["egress"]
    blocks = [to["ipBlock"] for rule in egress for to in rule["to"] if "ipBlock" in to]
    (everywhere,) = (block for block in blocks if block["cidr"] == "0.0.0.0/0")
    assert inside in everywhere["except"]
