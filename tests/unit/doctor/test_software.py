"""Checks of what is installed."""

from __future__ import annotations

from worker.doctor import software
from worker.doctor.finding import Level
from worker.programs import DEBIAN_PACKAGES, DISPLAY_PROGRAMS


def levels(findings):
    return [finding.level for finding in findings]


def test_each_missing_program_is_a_failure_that_names_its_package(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = list(software.programs())
    assert levels(found) == [Level.FAILURE] * len(DISPLAY_PROGRAMS)
    for finding, name in zip(found, DISPLAY_PROGRAMS, strict=True):
        assert finding.remedy == f"run `apt-get install {DEBIAN_PACKAGES[name]}`"


def test_no_novnc_is_a_failure_only_for_the_debug_page(tmp_path):
    assert levels(software.novnc(tmp_path, wanted=False)) == [Level.WARNING]
    assert levels(software.novnc(tmp_path, wanted=True)) == [Level.FAILURE]


def test_the_version_of_novnc_is_that_of_its_folder(tmp_path):
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "rfb.js").touch()
    (tmp_path / "package.json").write_text('{"version": "1.5.0"}')
    assert str(*software.novnc(tmp_path, wanted=True)) == f"ok    noVNC 1.5.0 ({tmp_path})"


def test_a_configured_browser_that_is_absent_names_the_setting(tmp_path):
    (found,) = software.chromium(tmp_path / "absent")
    assert found.level == Level.FAILURE
    assert "WORKER_CHROMIUM" in found.remedy


def test_the_python_packages_of_this_project_are_found():
    assert set(levels(software.packages())) == {Level.OK}


def test_fonts_are_not_checked_without_fontconfig(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    (found,) = software.fonts()
    assert str(found) == "warn  fonts are not checked: no fc-list: run `apt-get install fontconfig`"
