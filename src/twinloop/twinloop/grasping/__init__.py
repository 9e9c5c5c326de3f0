# SPDX-License-Identifier: Apache-2.0
"""Grasps of unknown things from depth images; no ROS."""
