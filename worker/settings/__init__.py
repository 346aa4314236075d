"""Settings: the `WORKER_…` variables, one module per program (`run`, `serve`) or runner.

A new setting is a field of the class that reads it: `run.RunSettings`, `serve.ServeSettings`,
`local.LocalSettings`, `docker.DockerSettings` or `kubernetes.KubernetesSettings`; of
`shared.SharedSettings`, if both programs read it. After a change, `python -m worker.settings`
updates the tables in the READMEs.
"""

from worker.settings.loading import load, load_serve, unknown_variables
from worker.settings.shared import PREFIX
from worker.settings.tables import table

__all__ = ["PREFIX", "load", "load_serve", "table", "unknown_variables"]
