# SPDX-License-Identifier: Apache-2.0
"""Simulated twins of the robots that twinloop drives."""
