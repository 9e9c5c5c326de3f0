# SPDX-License-Identifier: Apache-2.0
"""What drives a Franka arm a thousand times a second: `process` runs beside the node."""
