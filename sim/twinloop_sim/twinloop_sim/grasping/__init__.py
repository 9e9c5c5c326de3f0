# SPDX-License-Identifier: Apache-2.0
"""A bin, a table and unknown things in PyBullet: what depth grasping is trained and tried in."""
