"""The repository is what is imported, and everything in it belongs to it."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("data", "envs", "policy", "deploy")


@pytest.mark.parametrize("name", [*PACKAGES, "prise"])
def test_package_is_ours(name: str) -> None:
    spec = find_spec(name)
    assert spec is not None, f"{name!r} is not importable; run ./run setup"
    assert spec.origin is not None, f"{name!r} has no __init__.py"
    assert Path(spec.origin).is_relative_to(ROOT), (
        f"{name!r} is shadowed by {spec.origin}; check PYTHONPATH"
    )


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_with_modules_is_a_package(package: str) -> None:
    folders = {path.parent for path in (ROOT / package).rglob("*.py")}
    assert [f for f in folders if not (f / "__init__.py").is_file()] == []
    assert (ROOT / package / "py.typed").is_file()


@pytest.mark.parametrize("folder", ["configs", "tests"])
def test_folders_without_code_of_ours_are_no_packages(folder: str) -> None:
    assert list((ROOT / folder).rglob("__init__.py")) == []


def test_git_does_not_ignore_code() -> None:
    code = [p for name in PACKAGES for p in (ROOT / name).rglob("*.py")]
    listing = "\n".join(str(p.relative_to(ROOT)) for p in code)
    command = ["git", "check-ignore", "--no-index", "--stdin"]
    answer = subprocess.run(
        command, cwd=ROOT, input=listing, capture_output=True, text=True, check=False
    )
    if answer.returncode > 1:
        pytest.skip("not a git checkout")
    assert answer.stdout == ""


def test_no_module_hides_one_of_the_standard_library() -> None:
    # Only at the root: modules inside packages are imported by their full names.
    names = {p.stem for p in ROOT.glob("*.py")} | set(PACKAGES)
    assert names & set(sys.stdlib_module_names) == set()
