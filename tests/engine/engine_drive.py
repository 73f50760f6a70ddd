"""A driver in a process of its own: `engine_drive.py DB EXECUTOR ENTRY` prints each event as a JSON line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from conftest import study

from miras_search.engine.driver import RunOptions, run_study
from miras_search.engine.events import Event
from miras_search.errors import MirasError
from miras_search.store.database import Database


def tell(event: Event) -> None:
    print(json.dumps(event.to_plain()), flush=True)


if __name__ == "__main__":
    where, executor, entry = sys.argv[1:]
    try:
        with Database.open(where, create=True) as db:
            run_study(study(), db, RunOptions(executor=executor, workers=2, entry=entry, grace=0.5), tell)
    except MirasError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
