# SPDX-License-Identifier: Apache-2.0
"""What viewers show of a cell, whichever they are; no ROS in here."""
