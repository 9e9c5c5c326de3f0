# SPDX-License-Identifier: Apache-2.0
"""Which pixels of a depth image show which thing of a heap; no ROS."""

from twinloop.grasping.segmentation.segmenter import Segmenter, Segments, segment, shipped

__all__ = ["Segmenter", "Segments", "segment", "shipped"]
