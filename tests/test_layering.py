"""The architecture, held by reading the sources: imports, what is not used, lengths."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = {
    "data": {"data"},
    "envs": {"envs", "data"},
    "policy": {"policy", "data"},
    "deploy": {"deploy", "data", "envs", "policy"},
}
MODULES = sorted(p.relative_to(ROOT) for name in ALLOWED for p in (ROOT / name).rglob("*.py"))
FILES = [Path("prise.py"), *MODULES]
ROS = ("rclpy", "builtin_interfaces")
HYDRA_FILES = {Path("deploy/commands/compose.py"), Path("deploy/commands/sweep.py")}
MAX_FILE_LINES = 299
MAX_FUNCTION_LINES = 60

each_file = pytest.mark.parametrize("path", FILES, ids=str)
each_module = pytest.mark.parametrize("path", MODULES, ids=str)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[str]:
    """Dotted names of all that a module imports, also inside functions."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def roots(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


@each_module
def test_imports_follow_the_arrows(path: Path) -> None:
    ours = roots(path) & (ALLOWED.keys() | {"prise", "tests"})
    assert ours <= ALLOWED[path.parts[0]]


@each_file
def test_ros_is_imported_only_by_deploy_ros2(path: Path) -> None:
    ros = {name for name in roots(path) if name in ROS or name.endswith(("_msgs", "_srvs"))}
    assert not ros or path.is_relative_to("deploy/ros2")


@each_file
def test_hydra_stays_at_the_front_door(path: Path) -> None:
    assert not roots(path) & {"hydra", "omegaconf"} or path in HYDRA_FILES


@each_file
def test_ray_is_imported_only_where_work_is_spread(path: Path) -> None:
    assert "ray" not in roots(path) or path == Path("envs/ray_workers.py")


@each_file
def test_metaworld_is_imported_only_by_its_tasks(path: Path) -> None:
    assert "metaworld" not in roots(path) or path.is_relative_to("envs/metaworld")


@each_module
def test_environments_do_without_torch(path: Path) -> None:
    assert path.parts[0] != "envs" or not roots(path) & {"torch", "torchvision", "accelerate"}


@each_file
def test_nothing_is_pickled_by_us(path: Path) -> None:
    assert not roots(path) & {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    calls = {ast.unparse(n.func) for n in ast.walk(tree(path)) if isinstance(n, ast.Call)}
    assert not calls & {"torch.load", "torch.save", "np.load", "numpy.load"}


@each_file
def test_no_error_is_caught_unseen(path: Path) -> None:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ExceptHandler):
            caught = "" if node.type is None else ast.unparse(node.type)
            names = caught.strip("()").split(", ")
            assert not {"", "Exception", "BaseException"} & set(names), f"{path}:{node.lineno}"


@each_file
def test_files_and_functions_stay_short(path: Path) -> None:
    assert len((ROOT / path).read_text(encoding="utf-8").splitlines()) <= MAX_FILE_LINES
    for node in ast.walk(tree(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{path}:{node.lineno} {node.name}: {length} lines"


@each_module
def test_init_files_hold_a_docstring_and_exports_only(path: Path) -> None:
    # envs/__init__.py also registers the environments: importing it is how gymnasium learns them.
    if path.name != "__init__.py" or path == Path("envs/__init__.py"):
        return
    for node in tree(path).body:
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_all = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        is_import = isinstance(node, (ast.Import, ast.ImportFrom))
        assert is_docstring or is_all or is_import, f"{path}:{node.lineno}"
    assert ast.get_docstring(tree(path)), f"{path} has no docstring"


@each_file
def test_exports_exist(path: Path) -> None:
    body = tree(path).body
    defined = {name.split(".")[-1] for name in imports(path)}
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            defined.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            defined |= {ast.unparse(target) for target in targets}
    for node in body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            assert set(ast.literal_eval(node.value)) <= defined
