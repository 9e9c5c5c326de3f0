# SPDX-License-Identifier: Apache-2.0
"""A page in the browser that shows a running cell; no ROS in here.

What is shown is a plain `CellState`. A node, a test or a replay fills it; `Page` draws it.
"""
