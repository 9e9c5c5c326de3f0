# SPDX-License-Identifier: Apache-2.0
"""What brings a scene back to where an episode starts."""
