# SPDX-License-Identifier: Apache-2.0
"""The process in which a training job runs: `python -m twinloop.learning.online_child`.

It gets its config as the first line of standard input and answers with one JSON object a line on
standard output. Its life is tied to whoever holds the other end of its input: when that closes,
also because its holder was killed, the process ends at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from typing import Any

BUSY = 3


def main() -> int:
    """Run one job; returns the exit status, `BUSY` where another learner works here."""
    events = _claim_output()

    def report(kind: str, message: str, **values: Any) -> None:
        events.write(json.dumps({"kind": kind, "message": message, **values}) + "\n")
        events.flush()

    config = sys.stdin.readline()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    lower_priority(json.loads(config).get("priority"))
    # Only now, because these imports take seconds of processor time.
    from twinloop.learning.online_job import LearnerBusy, LearnerConfig, run_job

    try:
        run_job(LearnerConfig.model_validate_json(config), report)
    except LearnerBusy as error:
        report("busy", str(error))
        return BUSY
    except Exception as error:
        report("crashed", f"{type(error).__name__}: {error}")
        raise
    return 0


def lower_priority(priority: str) -> None:
    """Yield to other processes: `idle` takes only the processor time that nobody else wants, `low`
    a small share of it, `normal` as much as any."""
    if priority == "normal":
        return
    os.nice(19)
    if priority == "idle":
        # Where the system does not have it, niceness has to do.
        with contextlib.suppress(AttributeError, OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def _claim_output() -> Any:
    """Return the stream of events; what libraries print goes to standard error instead."""
    events = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return events


def _end_with_parent() -> None:
    # Unbuffered: a thread that waits in sys.stdin would block the interpreter's end.
    while os.read(0, 4096):
        continue
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
