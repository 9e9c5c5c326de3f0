# SPDX-License-Identifier: Apache-2.0
"""Reports of runs: figures, plots and a summary, all from the bags that a run left."""

from twinloop.reporting.episodes import EpisodeFigures, read_run
from twinloop.reporting.report import Models, Report, Run, build, write

__all__ = ["EpisodeFigures", "Models", "Report", "Run", "build", "read_run", "write"]
