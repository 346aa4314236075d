"""The READMEs: short, complete, and in agreement with the code."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import readmes
from readmes import FILES, ROOT

from worker import close_codes, outcome
from worker.close_codes import Close, CloseCode
from worker.outcome import Outcome, Status, TaskError

LINES_MAX = 150
FOLDERS = (
    "docker",
    "docker/k8s",
    "scripts",
    "scripts/benchmarks",
    "tests",
    "worker",
    "worker/api",
    "worker/stream",
    "worker/task",
)
SETTINGS = ("RunSettings", "ServeSettings", "DockerSettings", "KubernetesSettings")
AT_RUN_TIME = frozenset(
    {
        "api-keys.json",
        "pod.log",
        "result.json",
        "task.js",
        "task.log",
        "task.py",
        "path/file.py",
    }
)
"""Names of files that users write or programs make."""
# What the name of a file of this repository ends with.
_FILE_NAME = re.compile(r"[\w./-]+\.(?:conf|css|html|js|json|jsx|md|png|py|svg|toml|txt|yaml)")

every_readme = pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))


def test_length():
    """README.md has at most 150 lines."""
    assert len((ROOT / "README.md").read_text().splitlines()) <= LINES_MAX


@pytest.mark.parametrize("folder", FOLDERS)
def test_folder(folder):
    """Each of these folders has a README, to which README.md links."""
    assert ROOT / folder / "README.md" in FILES
    assert f"]({folder}/README.md)" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("package", [f.parent for f in (ROOT / "worker").glob("*/__init__.py")])
def test_package(package):
    """Each package of `worker` has a README."""
    assert package / "README.md" in FILES


@every_readme
def test_links(file):
    """Each relative link leads to a file or folder, and to a heading of it."""
    for target in re.findall(r"\]\(([^)\s]+)\)", file.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (file.parent / path).resolve() if path else file
        assert found.exists(), target
        assert not anchor or anchor in _anchors(found), target


def _anchors(file: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}


@every_readme
def test_file_names(file):
    """Each file that is named in code font exists, from the README's folder or from the root."""
    names = {
        name
        for code in re.findall(r"`([^`\n]+)`", file.read_text())
        if (name := code.partition(":")[0]) and _FILE_NAME.fullmatch(name)
    }
    missing = {
        name
        for name in names - AT_RUN_TIME
        if not name.startswith("/")
        and not any((base / name).exists() for base in (file.parent, ROOT))
    }
    assert not missing


@every_readme
def test_kustomizations(file):
    """Each folder that is given to `kubectl apply -k`, or its original, holds a kustomization."""
    text = file.read_text()
    originals = {copy: folder for folder, copy in re.findall(r"cp -r (\S+) (\S+)", text)}
    for folder in re.findall(r"kubectl apply -k (\S+)", text):
        found = ROOT / originals.get(folder, folder) / "kustomization.yaml"
        assert found.is_file(), folder


def test_references_stay_in_this_repository():
    """No README and no source refers to a document that is not here."""
    sources = [
        file
        for folder in ("worker", "scripts", "tests", "docker")
        for file in (ROOT / folder).rglob("*")
        if file.suffix in {".py", ".js", ".md", ".sh", ".yaml", ".conf"} and file != Path(__file__)
    ]
    foreign = re.compile(r"\bDESIGN\b|\bSTYLE\.md\b")
    found = [file for file in [*FILES, *sources] if foreign.search(file.read_text())]
    assert found == []


def test_blocks():
    """Each block of commands has a name of its own and a test that runs it."""
    names = [name for name, _ in readmes.blocks()]
    assert len(set(names)) == len(names)
    tests = "".join(
        file.read_text()
        for folder in ("image", "integration")
        for file in (ROOT / "tests" / folder).glob("test_*.py")
    )
    assert [
        name for name in names if not re.search(rf'(?:block|commands)\("{name}"\)', tests)
    ] == []


def test_settings_tables():
    """Each settings class has exactly one table, in one README."""
    text = "".join(file.read_text() for file in FILES)
    assert sorted(re.findall(r"<!-- settings: (\w+) -->", text)) == sorted(SETTINGS)
    assert text.count("<!-- /settings -->") == len(SETTINGS)


def _exits() -> set[tuple[str, int]]:
    error = TaskError(type="Error", message="")
    ends: list[Outcome] = [
        outcome.success(None),
        outcome.raised(error),
        outcome.timed_out(1),
        outcome.cancelled(outcome.EXIT_SIGTERM),
        outcome.cancelled(outcome.EXIT_SIGINT),
        outcome.session_lost(error),
    ]
    return {(f"`{end.status}`", end.exit_code) for end in ends} | {("–", outcome.EXIT_USAGE)}


@pytest.mark.parametrize("file", ["README.md", "worker/task/README.md"])
def test_exit_codes(file):
    """The table of exit codes holds the outcomes that the code can give, and no other."""
    table = readmes.section(ROOT / file, "exit codes")
    assert table is not None
    shown = [(status, int(code)) for status, code, _ in readmes.rows(table)]
    assert sorted(shown) == sorted(_exits())
    codes = {code for _, code in shown}
    unused = {outcome.EXIT_SIGNAL_BASE, outcome.EXIT_SIGKILL}
    defined = {value for name, value in vars(outcome).items() if name.startswith("EXIT_")}
    assert codes == defined - unused


def _closes() -> dict[int, set[str]]:
    closes = [value for value in vars(close_codes).values() if isinstance(value, Close)]
    closes += [Outcome(status=status, exit_code=0).close for status in Status]
    reasons: dict[int, set[str]] = {}
    for close in closes:
        reasons.setdefault(close.code, set()).add(close.reason)
    return reasons


@pytest.mark.parametrize("file", ["README.md", "worker/stream/README.md"])
def test_close_codes(file):
    """The table of close codes holds the codes and reasons that the code can send, and no other."""
    table = readmes.section(ROOT / file, "close codes")
    assert table is not None
    shown = {
        int(code): set(re.findall("`([^`]+)`", text)) for code, text, *_ in readmes.rows(table)
    }
    assert shown == _closes()
    assert CloseCode.TASK_ENDED in shown


def test_layers():
    """The layers in worker/README.md are those of the import contract."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (contract,) = [
        each for each in project["tool"]["importlinter"]["contracts"] if each["type"] == "layers"
    ]
    shown = readmes.section(ROOT / "worker/README.md", "layers")
    assert shown == "```\n" + "\n".join(contract["layers"]) + "\n```\n"


def test_events():
    """Every event that the code emits is in the events table of a README."""
    code = "".join(file.read_text() for file in sorted((ROOT / "worker").rglob("*.py")))
    emitted = set(re.findall(r'(?:emit|report)\(\s*"([a-z0-9_]+\.[a-z_]+)"', code))
    assert len(emitted) > 10
    text = (ROOT / "worker/README.md").read_text() + (ROOT / "worker/api/README.md").read_text()
    assert [name for name in sorted(emitted) if f"`{name}`" not in text] == []
