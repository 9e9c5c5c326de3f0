# SPDX-License-Identifier: Apache-2.0
"""Two balls from stereo images: `BallTracker` takes pairs of images and returns `Tracks`."""

from twinloop.perception.ball_tracker.settings import TrackerSettings
from twinloop.perception.ball_tracker.tracker import BallTracker
from twinloop.perception.ball_tracker.tracks import Tracks, annotate

__all__ = ["BallTracker", "TrackerSettings", "Tracks", "annotate"]
