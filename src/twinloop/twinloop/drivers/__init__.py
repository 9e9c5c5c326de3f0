# SPDX-License-Identifier: Apache-2.0
"""Devices: what speaks to them, and what keeps them going. Nothing here knows ROS."""
