# SPDX-License-Identifier: Apache-2.0
"""Reports of runs: figures, plots and a summary, all from the bags that a run left."""
