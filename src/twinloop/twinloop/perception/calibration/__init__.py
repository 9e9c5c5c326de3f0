# SPDX-License-Identifier: Apache-2.0
"""Calibration of cameras from pictures of a printed board: lenses, stereo pairs, camera to hand."""
