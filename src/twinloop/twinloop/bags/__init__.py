# SPDX-License-Identifier: Apache-2.0
"""Episodes on disk: one rosbag2 folder each, written, read, checked and repaired without ROS."""

from twinloop.bags.errors import BagError, BagWriteError
from twinloop.bags.metadata import BagInformation, EpisodeMetadata
from twinloop.bags.read import BagMessage, complete_bags, metadata, read_messages, unfinished_bags
from twinloop.bags.write import EpisodeWriter

__all__ = [
    "BagError",
    "BagInformation",
    "BagMessage",
    "BagWriteError",
    "EpisodeMetadata",
    "EpisodeWriter",
    "complete_bags",
    "metadata",
    "read_messages",
    "unfinished_bags",
]
