"""A Kubernetes API server for tests: kmock's, with the behaviour that the runner depends on."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kmock
import yaml
from kmock import KubernetesEmulator, KubernetesError, ResourceInfo

NAMESPACE = "worker"
JOBS, PODS = kmock.resource("batch/v1/jobs"), kmock.resource("v1/pods")
SECRETS = kmock.resource("v1/secrets")


# Terms of a label selector: `name`, `name=value`, `name in (value,value)`.
_SELECTOR = re.compile(r"([^,=() ]+)(?:=([^,]*)| in \(([^)]*)\))?")

_VERBS = {
    kmock.action.CREATE: "create",
    kmock.action.FETCH: "get",
    kmock.action.LIST: "list",
    kmock.action.UPDATE: "patch",
}


@dataclass
class _Refusal:
    verb: str
    kind: str
    error: KubernetesError
    left: int
    done: bool

    def applies_to(self, asked: tuple[str, str, str]) -> bool:
        _, kind, verb = asked
        return self.left > 0 and self.verb in ("*", verb) and self.kind in ("*", kind)


class FakeCluster(KubernetesEmulator):
    """Gives objects uid and resourceVersion, checks the latter, and selects by labels."""

    def __init__(self) -> None:
        super().__init__()
        for resource in (JOBS, PODS, SECRETS):
            self.resources[resource] = ResourceInfo()
        self.seen: set[tuple[str, str, str]] = set()
        self._count = itertools.count(1)
        self._refusals: list[_Refusal] = []

    async def _handle(self, request: kmock.Request) -> Any:
        if request.resource is None:
            return await super()._handle(request)
        assert request.action is not None
        asked = (request.resource.group or "", _kind(request), _VERBS[request.action])
        self.seen.add(asked)
        refusal = next((each for each in self._refusals if each.applies_to(asked)), None)
        if refusal is not None:
            refusal.left -= 1
        if refusal is not None and not refusal.done:
            return await self._render_error(refusal.error)
        if request.action == kmock.action.CREATE:
            number = next(self._count)
            metadata = request.data["metadata"]
            metadata |= {"uid": f"uid-{number}", "resourceVersion": f"{number}"}
            metadata |= {"namespace": request.namespace}
        if request.action == kmock.action.UPDATE and self._is_stale(request):
            error = KubernetesError(status=409, reason="Conflict", message="it has been modified")
            return await self._render_error(error)
        answer = await super()._handle(request)
        return answer if refusal is None else await self._render_error(refusal.error)

    def _is_stale(self, request: kmock.Request) -> bool:
        assert request.resource is not None
        assert request.name is not None
        key = (request.resource, request.namespace, request.name)
        wanted = request.data["metadata"].get("resourceVersion")
        exists = key in self.objects and not self.objects[key].deleted
        known = self.objects[key]["metadata"]["resourceVersion"] if exists else None
        request.data["metadata"]["resourceVersion"] = f"{next(self._count)}"
        return known is not None and wanted not in (None, known)

    async def _serve_list(self, request: kmock.Request) -> Any:
        answer: Any = await super()._serve_list(request)
        selector = request.params.get("labelSelector", "")
        answer["items"] = [item for item in answer["items"] if selects(selector, item)]
        return answer

    # -- for the test

    def refuse(
        self,
        verb: str,
        kind: str,
        status: int,
        message: str = "",
        *,
        times: int = 1000,
        done: bool = False,
    ) -> None:
        """Answer the next matching requests so (`*`: any); with `done` they are executed, too."""
        error = KubernetesError(status=status, reason="Refused", message=message)
        self._refusals.append(_Refusal(verb, kind, error, times, done))

    def allow(self) -> None:
        """End all refusals."""
        self._refusals.clear()

    def job(self, task_id: str) -> dict[str, Any]:
        """A Job as it is now."""
        found: dict[str, Any] = self.objects[JOBS, NAMESPACE, task_id].last.raw
        return found

    def secret(self, task_id: str) -> dict[str, Any]:
        """A task's Secret."""
        found: dict[str, Any] = self.objects[SECRETS, NAMESPACE, task_id].last.raw
        return found

    def end_job(self, task_id: str, kind: str, reason: str = "", message: str = "") -> None:
        """As the Job's controller does it: Complete or Failed."""
        condition = {"type": kind, "status": "True", "reason": reason, "message": message}
        condition["lastTransitionTime"] = "2026-01-02T03:05:07Z"
        self.objects[JOBS, NAMESPACE, task_id]["status"] = {"conditions": [condition]}

    def remove_expired_job(self, task_id: str) -> None:
        """Delete a Job whose TTL is over, as the TTL controller does it."""
        job = self.objects[JOBS, NAMESPACE, task_id]
        if not job.deleted and job.raw["spec"].get("ttlSecondsAfterFinished") == 0:
            job.delete()

    def annotate(self, task_id: str, **annotations: str) -> None:
        """Change annotations as another client (`worker/` is prefixed, `_` stands for `-`)."""
        changed = {f"worker/{name.replace('_', '-')}": text for name, text in annotations.items()}
        self.objects[JOBS, NAMESPACE, task_id].patch({"metadata": {"annotations": changed}})

    def set_pod(self, task_id: str, state: dict[str, Any] | None = None, **status: Any) -> None:
        """Create or change the pod of a task: its container's state, and further status fields."""
        labels = self.job(task_id)["spec"]["template"]["metadata"]["labels"]
        containers = [] if state is None else [{"name": "worker", "state": state}]
        self.objects[PODS, NAMESPACE, f"{task_id}-abcde"] = {
            "metadata": {
                "name": f"{task_id}-abcde",
                "labels": labels,
                "creationTimestamp": datetime.now(UTC).isoformat(),
            },
            "status": {"containerStatuses": containers, **status},
        }

    def remove_pod(self, task_id: str) -> None:
        """Delete the pod of a task."""
        self.objects[PODS, NAMESPACE, f"{task_id}-abcde"].delete()


def _kind(request: kmock.Request) -> str:
    """As a Role has it: `pods/log`."""
    assert request.resource is not None
    return "/".join(part for part in (request.resource.plural, request.subresource) if part)


def selects(selector: str, item: dict[str, Any]) -> bool:
    labels = item["metadata"].get("labels", {})
    for name, value, values in _SELECTOR.findall(selector):
        accepted = values.split(",") if values else [value] if value else None
        if name not in labels or (accepted is not None and labels[name] not in accepted):
            return False
    return True


def kubeconfig(folder: Path, server: str) -> Path:
    """A kubeconfig for this server."""
    file = folder / "kubeconfig"
    context = {"cluster": "c", "user": "u", "namespace": NAMESPACE}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "x",
        "contexts": [{"name": "x", "context": context}],
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    file.write_text(yaml.safe_dump(content))
    return file
