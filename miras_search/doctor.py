"""Is this machine ready to run studies? One check a concern, and a remedy for each problem.

Nothing here changes anything: the write check takes the database's write lock and gives it back, and Ray is started
only when asked for.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from miras_search import compiler
from miras_search.errors import EnvironmentProblem, MirasError

Level = Literal["ok", "warning", "problem"]

NEEDED = (
    "torch",
    "numpy",
    "safetensors",
    "optuna",
    "sqlalchemy",
    "alembic",
    "pydantic",
    "scipy",
    "streamlit",
    "plotly",
)
LEAST_FREE = 1 << 30  # bytes: a database of 10,000 trials is 22 MB, a checkpoint of these models less than one


@dataclass(frozen=True, slots=True)
class Check:
    """What was found about one concern. A warning costs something, a problem stops a run."""

    name: str
    level: Level
    found: str
    remedy: str = ""


def diagnose(*, database: str, source: str, address: str | None = None, start_ray: bool = False) -> list[Check]:
    """Every check, in the order in which a run would meet the problems.

    `database` is a path or URL and `source` who named it, `address` a Ray cluster. With `start_ray` Ray is really
    started, or the cluster joined, which takes seconds.
    """
    return [
        *_versions(),
        *_database(database, source),
        _disk(database),
        _ray(address, start=start_ray),
        *_accelerators(),
    ]


def _versions() -> Iterator[Check]:
    from miras_search.engine.provenance import versions

    yield Check("versions", "ok", ", ".join(f"{name} {found}" for name, found in versions().items()))
    missing = [name for name in NEEDED if _version(name) is None]
    if missing:
        names = ", ".join(missing)
        yield Check("packages", "problem", f"not installed: {names}", f"pip install {' '.join(missing)}")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _database(where: str, source: str) -> Iterator[Check]:
    from miras_search.store.address import parse_database, safe_url, sqlite_path
    from miras_search.store.database import Database
    from miras_search.store.migrations import HEAD

    try:
        url = parse_database(where)
    except MirasError as error:
        yield _problem("database", error)
        return
    said = f"{safe_url(url)} ({source})"
    file = sqlite_path(url)
    if file is not None and not file.exists():
        folder = file.parent
        if folder.is_dir():
            yield Check("database", "ok", f"{said}: not there yet, the first run creates it")
        else:
            yield Check(
                "database", "problem", f"{said}: the folder does not exist", f"mkdir -p {folder}, or change --db"
            )
        return
    try:
        with Database.open(url, check=False) as db:
            with db.writing():
                pass  # the lock was to be had
            revision = db.revision()
            if revision == HEAD:
                yield Check("database", "ok", f"{said}: writable, revision {revision}")
                yield from _leases(db)
            elif revision == "":
                yield Check("database", "ok", f"{said}: writable, no tables yet, the first run creates them")
            else:
                Database.open(url, read_only=True).close()  # raises with what is wrong about the revision
    except MirasError as error:
        yield _problem("database", error)


def _leases(db: object) -> Iterator[Check]:
    from miras_search.store import queries
    from miras_search.store.database import Database
    from miras_search.store.lease import is_live

    assert isinstance(db, Database)
    studies = queries.studies(db)
    yield Check("studies", "ok", ", ".join(study.name for study in studies) or "none yet")
    now = datetime.now(UTC)
    for study in studies:
        for run in queries.runs(db, study.id):
            if run.status != "running":
                continue
            silent = (now - run.heartbeat_at).total_seconds()
            found = f"{study.name}: run {run.id} by process {run.pid} on {run.host}, heartbeat {silent:.0f} s ago"
            if is_live(run, now):
                yield Check("lease", "ok", found)
            else:
                yield Check("lease", "warning", f"{found}: it is gone", "run the study again: it goes on from there")


def _disk(where: str) -> Check:
    from miras_search.store.address import parse_database, sqlite_path

    try:
        file = sqlite_path(parse_database(where))
    except MirasError:
        file = None
    folder = Path.cwd() if file is None else file.parent
    while not folder.exists():
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    found = f"{usage.free / 2**30:.1f} GiB free in {folder}"
    if usage.free < LEAST_FREE:
        return Check("disk", "problem", found, "make room, or move the database with --db")
    return Check("disk", "ok", found)


def _ray(address: str | None, *, start: bool) -> Check:
    if importlib.util.find_spec("ray") is None:
        return Check("ray", "warning", "not installed: jobs run by the local executor", "pip install ray")
    told = f"version {_version('ray') or 'unknown'}"
    if address is not None:
        told += f", cluster {address}"
    if not start:
        return Check("ray", "ok", f"{told}; not tried (--ray tries)")
    try:
        from miras_search.engine.ray_ import RayExecutor

        executor = RayExecutor(1, cpus=1, gpus=0, address=address)
    except (EnvironmentProblem, ImportError) as error:
        return Check("ray", "problem", f"{told}: {error}", "take --executor local, or mend Ray")
    executor.close()
    return Check("ray", "ok", f"{told}: started, answered and left")


def _accelerators() -> Iterator[Check]:
    from miras_search.engine.capacity import cpu_count, visible_gpus

    yield Check("cores", "ok", f"{cpu_count()} for this process")
    shown = visible_gpus()
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a shared library of CUDA's is missing
        yield Check("gpu", "problem", f"torch cannot be imported: {error}", "install torch again")
        return
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus:
        yield Check("gpu", "ok", ", ".join(torch.cuda.get_device_name(index) for index in range(gpus)))
    elif shown:
        found = f"{len(shown)} present, but torch {torch.__version__} cannot use them"
        yield Check("gpu", "warning", found, "install a torch built for this driver's CUDA")
    else:
        yield Check("gpu", "ok", "none: studies run on the CPU")
    yield _triton(has_gpu=gpus > 0)
    yield _compiler()


def _compiler() -> Check:
    missing = compiler.problem()
    if missing:
        return Check("compiler", "ok", f"{missing.partition(':')[0]}: `resources.kernels: compiled` is not to be had")
    return Check("compiler", "ok", f"{compiler.name()}: `resources.kernels: compiled` makes a CPU's step code")


def _triton(*, has_gpu: bool) -> Check:
    installed = _version("triton")
    if installed is None:
        level: Level = "warning" if has_gpu else "ok"
        remedy = "pip install triton" if has_gpu else ""
        return Check("triton", level, "not installed: kernels run in plain torch", remedy)
    if not has_gpu:
        return Check("triton", "ok", f"version {installed}; not used without a GPU")
    try:
        importlib.import_module("miras_search.kernels.triton.chunked_launch")
    except ImportError as error:
        return Check("triton", "warning", f"version {installed} cannot be imported: {error}", "install triton again")
    return Check("triton", "ok", f"version {installed}")


def _problem(name: str, error: MirasError) -> Check:
    """The check for an error, whose message names place, problem and cure."""
    place, _, rest = str(error).partition(": ")
    what, _, cure = rest.rpartition(": ")
    return Check(name, "problem", f"{place}: {what}" if what else str(error), cure if what else "")
