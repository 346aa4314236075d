"""A task's Job and Secret from the template."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from pathlib import Path

import pytest
from fake_cluster import selects
from job_samples import MANIFEST, REQUEST, TEMPLATE

from worker.api.runners.kubernetes import job_record, job_spec


def container_of(job):
    return job["spec"]["template"]["spec"]["containers"][0]


def test_job_is_the_template():
    """A Job differs from docker/k8s/task/job.yaml only in what is the task's own."""
    job = TEMPLATE.job_for(dataclasses.replace(REQUEST, timeout_s=3600.0))
    task_id = REQUEST.task_id
    assert job["metadata"].pop("name") == task_id
    del job["metadata"]["annotations"]
    pod = job["spec"]["template"]
    for labels in (job["metadata"]["labels"], pod["metadata"]["labels"]):
        for name in [name for name in labels if name.startswith("worker/")]:
            del labels[name]
    assert pod["spec"].pop("hostname") == task_id
    container = container_of(job)
    environ = {each["name"]: each for each in container["env"]}
    assert environ["WORKER_TASK_ID"]["value"] == task_id
    assert environ["WORKER_STREAM_KEY"]["valueFrom"]["secretKeyRef"]["name"] == task_id
    assert json.loads(environ.pop("WORKER_INPUTS")["value"]) == REQUEST.inputs
    environ["WORKER_TASK_ID"]["value"] = "task"
    environ["WORKER_STREAM_KEY"]["valueFrom"]["secretKeyRef"]["name"] = "task"
    container["env"] = list(environ.values())
    container.pop("args")
    expected = copy.deepcopy(MANIFEST)
    del expected["metadata"]["name"], expected["spec"]["template"]["spec"]["hostname"]
    container_of(expected).pop("args", None)
    assert job == expected


VALUES = [
    "$(WORKER_STREAM_KEY)",
    *("$", "$$", "$$$", "$$$$", "$(", "$)", "$()", "$$(A)", "$(A)$(A)", "a$", "$(A", "$ (A)"),
    *("${A}", "$A", "`A`", "%A%", "\\$(A)", "'$(A)'", "$(WORKER_TASK_ID", "é$(A)\n"),
]


def expanded(value, environ):
    """What the kubelet passes; its rules are in Kubernetes' package `expansion`."""
    return re.sub(
        r"\$(?:(\$)|\(([^)]*)\))",
        lambda found: found[1] or environ.get(found[2], found[0]),
        value,
    )


@pytest.mark.parametrize("value", VALUES)
def test_values_are_passed_literally(value):
    """Nothing in an input or a setting is replaced by the kubelet, and the record has the same."""
    request = dataclasses.replace(REQUEST, inputs={value: [value]})
    job = dataclasses.replace(TEMPLATE, environ={"WORKER_X": value}).job_for(request)
    environ = {"A": "expanded", "WORKER_TASK_ID": "expanded", "WORKER_STREAM_KEY": "expanded"}
    passed = {
        each["name"]: expanded(each["value"], environ)
        for each in container_of(job)["env"]
        if "value" in each
    }
    assert passed["WORKER_X"] == value
    assert json.loads(passed["WORKER_INPUTS"]) == request.inputs
    assert job_record.record(job, []).inputs == request.inputs


def test_deadline():
    """A Job's deadline leaves a task as much time after its timeout as the template does."""
    job = TEMPLATE.job_for(dataclasses.replace(REQUEST, timeout_s=100.5))
    margin_s = MANIFEST["spec"]["activeDeadlineSeconds"] - 3600
    assert job["spec"]["activeDeadlineSeconds"] == 101 + margin_s


def test_image():
    """A set image replaces the template's."""
    template = dataclasses.replace(TEMPLATE, image="registry.example/worker:7")
    assert container_of(template.job_for(REQUEST))["image"] == "registry.example/worker:7"
    assert container_of(TEMPLATE.job_for(REQUEST))["image"] == container_of(MANIFEST)["image"]


def test_environ():
    """The API's environment is added; the task's own variables have priority."""
    environ = {"WORKER_ALLOWED_ORIGINS": "https://a.example", "WORKER_TASK_ID": "other"}
    job = dataclasses.replace(TEMPLATE, environ=environ).job_for(REQUEST)
    values = {each["name"]: each.get("value") for each in container_of(job)["env"]}
    assert values["WORKER_ALLOWED_ORIGINS"] == "https://a.example"
    assert values["WORKER_TASK_ID"] == REQUEST.task_id


def test_secret():
    """The key is in the Secret only, which is deleted with the Job."""
    job = TEMPLATE.job_for(REQUEST)
    job["metadata"]["uid"] = "u1"
    secret = job_spec.stream_key_secret(job, b"k" * 32)
    assert secret["stringData"] == {"stream_key": (b"k" * 32).hex()}
    assert secret["metadata"]["ownerReferences"][0]["uid"] == "u1"
    assert (b"k" * 32).hex() not in json.dumps(job)


@pytest.mark.parametrize(("url", "label"), [("https://a.example", "pending"), (None, "notified")])
def test_callback_label(url, label):
    """A Job without a callback is one whose client needs no notification."""
    job = TEMPLATE.job_for(dataclasses.replace(REQUEST, callback_url=url))
    assert job["metadata"]["labels"][job_spec.CALLBACK_LABEL] == label


@pytest.mark.parametrize(
    ("label", "selected"), [("pending", True), ("owed", True), ("notified", False), ("told", False)]
)
def test_pending_selector(label, selected):
    """The selector finds this version's pending callbacks and version 0.1's."""
    item = {"metadata": {"labels": {job_spec.CALLBACK_LABEL: label}}}
    assert selects(job_spec.PENDING_SELECTOR, item) is selected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"{", "is not YAML"),
        (b"kind: Pod", "is not a Job"),
        (b"[]", "is not a Job"),
        (b"kind: Job", "has no container `worker`"),
        (b"kind: Job\nspec: {template: {spec: {containers: [{name: x}]}}}", "no container"),
    ],
)
def test_bad_manifest(text, why):
    with pytest.raises(ValueError, match=why):
        job_spec.parse_manifest(text, Path("job.yaml"))


def test_mounts_endpoints():
    job = copy.deepcopy(MANIFEST)
    container_of(job)["volumeMounts"] = [{"name": "e", "mountPath": "/endpoints"}]
    assert job_spec.mounts_endpoints(job)
    container_of(job)["volumeMounts"] = []
    assert not job_spec.mounts_endpoints(job)
