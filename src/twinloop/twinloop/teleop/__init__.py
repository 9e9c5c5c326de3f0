# SPDX-License-Identifier: Apache-2.0
"""A person at the controls: devices to motions, motions to targets, and who commands. No ROS."""
