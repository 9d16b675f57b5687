"""Nothing that is read names code: what would run it is called in entry points only."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = sorted((ROOT / "recsys").rglob("*.py"))
RUN = [ROOT / "recsys" / "training" / name for name in ("run.py", "composed_config.py")]
"""What train.py and recsys.fit call: it builds what the repository's own configs name."""
ENTRY_POINTS = [*RUN, ROOT / "serve.py", *sorted((ROOT / "benchmarks").rglob("*.py"))]

RUNS_CODE = {
    *("instantiate", "call", "get_method", "get_class", "get_object", "get_static_method"),
    *("__import__", "import_module", "locate", "resolve_name"),
    *(
        "read_pickle",
        "Unpickler",
        "load_module",
        "run_path",
        "run_module",
        "spec_from_file_location",
    ),
    *("from_pretrained_code", "unsafe_load", "full_load", "safe_globals"),
}
BUILTINS = {"eval", "exec", "compile"}
MODULES = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "importlib", "runpy"}
HARMLESS = {"importlib.resources", "importlib.util", "importlib.metadata", "importlib"}
OWN_PIPES = re.compile(r"workers\.py:\d+: pickle")
"""Between a run and the processes that it has started: nothing else can write there."""
HYDRA_IN = {
    "cli.py",
    "overrides.py",
    "batch.py",
    "generator.py",
    "sample.py",
    "run.py",
    "composed_config.py",
    "keyword_settings.py",
    "fitting.py",
    "challenger.py",
    "resumed_arguments.py",
    "catalogue_size.py",
}
"""Entry points, and what reads or writes a composed configuration for them."""


def names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """What is imported and called, with its line; ``a.b.c`` of a call as ``c``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "", node.lineno)
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Attribute):
                yield function.attr, node.lineno
            elif isinstance(function, ast.Name):
                built_in = "built-in " if function.id in BUILTINS else ""
                yield built_in + function.id, node.lineno


def offences(source: str, path: str = "x.py") -> list[str]:
    tree = ast.parse(source)
    found = [
        f"{path}:{line}: {name}"
        for name, line in names(tree)
        if name in RUNS_CODE
        or name.startswith("built-in")
        or (name.split(".")[0] in MODULES and name not in HARMLESS)
    ]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if called == "torch.load" or options.get("allow_pickle", "False") != "False":
            found.append(f"{path}:{node.lineno}: {called}")
        if options.get("trust_remote_code", "False") != "False":
            found.append(f"{path}:{node.lineno}: trust_remote_code")
    return found


def test_the_package_runs_no_code_that_data_names() -> None:
    read = [path for path in PACKAGE if path not in RUN]
    found = [offence for path in read for offence in offences(path.read_text(), path.name)]
    assert [offence for offence in found if not OWN_PIPES.fullmatch(offence)] == []


@pytest.mark.parametrize(
    "source",
    [
        "from hydra.utils import instantiate",
        "hydra.utils.instantiate(x)",
        "import pickle",
        "from joblib import load",
        "pd.read_pickle(x)",
        "torch.load(x)",
        "np.load(x, allow_pickle=True)",
        "eval(x)",
        "importlib.import_module(x)",
        "AutoModel.from_pretrained(x, trust_remote_code=True)",
    ],
)
def test_this_would_be_found(source: str) -> None:
    assert offences(source)


def test_hydra_ends_in_entry_points() -> None:
    users = {
        path.name
        for path in PACKAGE
        for name, _ in names(ast.parse(path.read_text()))
        if name.split(".")[0] in ("hydra", "omegaconf")
    }
    assert users <= HYDRA_IN


def instantiated(path: Path) -> Iterator[tuple[ast.expr, set[str]]]:
    """What each call makes, and the names that stand for parts of a configuration there."""
    for function in ast.walk(ast.parse(path.read_text())):
        if not isinstance(function, ast.FunctionDef):
            continue
        arguments = [*function.args.args, *function.args.kwonlyargs]
        typed = [one for one in arguments if one.annotation is not None]
        configs = {one.arg for one in typed if "DictConfig" in ast.unparse(one.annotation)}
        configs |= {"cfg", "configuration"}  # composed there, or by a function of that name
        for node in ast.walk(function):
            # for tower in cfg.towers.values(), baselines = cfg.baselines: parts of one, too
            pairs: list[tuple[ast.expr, ast.expr]] = []
            if isinstance(node, ast.For | ast.comprehension):
                pairs.append((node.target, node.iter))
            elif isinstance(node, ast.Assign):
                pairs += [(target, node.value) for target in node.targets]
            for target, value in pairs:
                if root(value) in configs:
                    configs |= {n.id for n in ast.walk(target) if isinstance(n, ast.Name)}
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("instantiate"):
                yield node.args[0], configs


def root(node: ast.expr) -> str:
    """The name that an expression begins with: ``cfg`` of ``list(cfg.towers.values())[0]``."""
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Call):
            inner = (
                isinstance(node.func, ast.Name)
                and node.args
                and node.func.id in ("list", "enumerate")
            )
            node = node.args[0] if inner else node.func
        elif isinstance(node, ast.Attribute | ast.Subscript):
            node = node.value
        else:
            return ""
    return node.id


def test_entry_points_instantiate_configurations_of_the_repository() -> None:
    found = [
        (path.name, made, configs) for path in ENTRY_POINTS for made, configs in instantiated(path)
    ]
    assert len(found) > 10
    for name, made, configs in found:
        written = ast.unparse(made)
        assert root(made) in configs or written.startswith("setting.cfg."), f"{name}: {written}"
