# SPDX-License-Identifier: Apache-2.0
"""twinloop: robots that go on learning while they work."""

__version__ = "0.1.0"
