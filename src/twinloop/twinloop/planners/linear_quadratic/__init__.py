# SPDX-License-Identifier: Apache-2.0
"""Linear-Gaussian policies, quadratic costs, and what is solved with them in closed form."""
