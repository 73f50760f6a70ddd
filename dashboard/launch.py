"""How the dashboard is started: the arguments and the environment of a Streamlit process of its own.

The database's address may hold a password, so it travels in the environment, never in the arguments, which anyone on
the machine can read. The dashboard has no login: it listens on one address, and refuses a page of another host that
reaches it through the reader's browser.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from miras_search.errors import MirasError
from miras_search.store.address import parse_database

APP = Path(__file__).with_name("app.py")
VARIABLE = "MIRAS_DB_URL"
LOOPBACK = ("localhost", "127.0.0.1")
EVERYWHERE = ("", "0.0.0.0", "::", "*")


def command(url: str, host: str = "127.0.0.1", port: int = 8501) -> tuple[list[str], dict[str, str]]:
    """The arguments and the whole environment of the process that serves the database at `url` (a path or a URL).

    Raises MirasError for an address that is none, a port outside 1 to 65535, and a host that means every interface.
    """
    if not 1 <= port <= 65535:
        raise MirasError(f"port: {port} is not between 1 and 65535")
    if host in EVERYWHERE:
        raise MirasError(
            f"host: {host!r} would show the dashboard to the whole network, and it has no login: keep 127.0.0.1 and "
            "reach it through an SSH tunnel, or name one address of this machine"
        )
    hosts = dict.fromkeys((*LOOPBACK, host))
    flags = {
        "server.address": host,
        "server.port": port,
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "server.maxUploadSize": 1,
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "viewer",
        "client.showErrorDetails": "type",
    }
    arguments = [sys.executable, "-m", "streamlit", "run", str(APP)]
    arguments += [f"--{name}={value}" for name, value in flags.items()]
    # a list option takes one flag an entry: a comma would make one host of them and lock everyone out
    arguments += [f"--server.allowedHosts={name}" for name in hosts]
    address = parse_database(url).render_as_string(hide_password=False)
    return arguments, {**os.environ, VARIABLE: address}
