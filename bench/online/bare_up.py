"""The programs of the product with the bare web application and the bare online server: `python -m bench.online.bare_up --port N`.

MAAS_HOME names a home that the full stack has set up.
"""

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

from maas import product
from maas.embedded_postgres import postgres
from maas.embedded_redis import redis
from maas.homes import prepare_home
from maas.processes import Program
from maas.supervisor import Stopped, Supervisor

HOST = "127.0.0.1"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.online.bare_up", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    port: int = parser.parse_args().port
    home = Path(os.environ["MAAS_HOME"])
    prepare_home(home)
    supervisor = Supervisor()
    try:
        variables = product.environment(home, host=HOST, port=port, stores=_stores(supervisor, home))
        for program in product.programs(home, variables):
            supervisor.run(bare(program))
        supervisor.wait(lambda: False)
    except Stopped:
        pass
    finally:
        supervisor.stop()


def bare(program: Program) -> Program:
    """The same program without what customers need; others as they are."""
    if program.name not in {"web", "online"}:
        return program
    return replace(program, command=[sys.executable, "-m", "bench.online.bare", program.name])


def _stores(supervisor: Supervisor, home: Path) -> dict[str, str]:
    urls = {}
    for variable, describe in (("DATABASE_URL", postgres), ("REDIS_URL", redis)):
        program, urls[variable] = describe(home)
        supervisor.run(program)
        supervisor.wait_ready(program.name)
    return urls


if __name__ == "__main__":
    main()
