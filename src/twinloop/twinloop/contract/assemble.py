# SPDX-License-Identifier: Apache-2.0
"""Builds observation vectors from samples, live or from a bag, through one and the same code."""

from __future__ import annotations

from bisect import bisect_right, insort
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinloop.contract.sources import MalformedMessage, extract, is_usable, stamp_of
from twinloop.contract.spec import Channel, Contract


class ObservationUnavailable(Exception):
    """No observation can be built; `channel` names the reason.

    `is_lost` tells that the channel's sensor works, and says itself that it has no evidence.
    """

    def __init__(self, channel: str, message: str, is_lost: bool = False) -> None:
        super().__init__(message)
        self.channel = channel
        self.is_lost = is_lost


@dataclass(frozen=True)
class Observation:
    """A vector [O] for the step due at `stamp_ns`, and the stamp of the sample of each channel."""

    stamp_ns: int
    vector: NDArray[np.float32]
    sample_stamps_ns: dict[str, int]


class Assembler:
    """Keeps the newest samples of every channel and joins them into observations.

    Samples are chosen by their header stamps. Which ones were there in time is a matter of
    transport, so a live node records the stamps that it used, and `assemble_at` picks exactly
    those again: that makes offline vectors equal to live ones.

    Args:
        contract: what to build.
        history_s: how long samples are kept before the newest one [s]; None keeps all (bags).
    """

    def __init__(self, contract: Contract, history_s: float | None = 2.0) -> None:
        self.contract = contract
        self._history_ns = None if history_s is None else int(history_s * 1e9)
        self._samples: dict[str, list[tuple[int, NDArray[np.float64]]]] = {
            channel.name: [] for channel in contract.observation
        }
        self._denied_ns: dict[str, int] = {}  # newest sample that is no evidence, by channel
        self._by_topic: dict[str, list[Channel]] = {}
        for channel in contract.observation:
            self._by_topic.setdefault(channel.topic, []).append(channel)

    @property
    def topics(self) -> dict[str, str]:
        """Topic name to message type, for subscribing."""
        return {topic: channels[0].type for topic, channels in self._by_topic.items()}

    def feed(self, topic: str, message: Any) -> None:
        """Take a sample.

        Raises:
            MalformedMessage: the message does not hold what the contract needs; nothing is taken.
        """
        channels = self._by_topic.get(topic, [])
        if not channels:
            return
        try:
            stamp = stamp_of(message)
        except MalformedMessage as error:
            raise MalformedMessage(f"{topic}: {error}") from error
        taken = []
        for channel in channels:
            if is_usable(channel, message):
                taken.append((channel, extract(channel, message)))
            else:
                self._denied_ns[channel.name] = stamp
        for channel, values in taken:
            self._insert(channel.name, stamp, values)

    def _insert(self, name: str, stamp: int, values: NDArray[np.float64]) -> None:
        samples = self._samples[name]
        if self._history_ns is not None and samples:
            # A sample far from the others means that the clock has stepped.
            if abs(stamp - samples[-1][0]) > self._history_ns:
                samples.clear()
            while samples and samples[0][0] < stamp - self._history_ns:
                samples.pop(0)
        if samples and stamp < samples[-1][0]:
            insort(samples, (stamp, values), key=lambda sample: sample[0])
        elif samples and stamp == samples[-1][0]:
            samples[-1] = (stamp, values)
        else:
            samples.append((stamp, values))

    def clear(self) -> None:
        """Forget all samples, as after a step of the clock."""
        for samples in self._samples.values():
            samples.clear()
        self._denied_ns.clear()

    def assemble(self, stamp_ns: int) -> Observation:
        """Build the observation for the step due at `stamp_ns`, each channel held from its newest
        sample that is not after it.

        Raises:
            ObservationUnavailable: a channel has no sample, or only one older than its max_age_s.
        """
        vectors, stamps = [], {}
        for channel in self.contract.observation:
            samples = self._samples[channel.name]
            index = bisect_right(samples, stamp_ns, key=lambda sample: sample[0]) - 1
            if index < 0:
                raise ObservationUnavailable(
                    channel.name, f"channel {channel.name} has no sample (topic {channel.topic})"
                )
            stamp, values = samples[index]
            age_s = (stamp_ns - stamp) / 1e9
            if age_s > channel.max_age_s:
                raise ObservationUnavailable(
                    channel.name,
                    f"channel {channel.name} is {age_s:.3f} s old, at most "
                    f"{channel.max_age_s:.3f} s allowed (topic {channel.topic})",
                    self._is_denied(channel, stamp, stamp_ns),
                )
            vectors.append(values)
            stamps[channel.name] = stamp
        vector = np.concatenate(vectors).astype(np.float32)
        return Observation(stamp_ns, vector, stamps)

    def newest(self, topic: str, stamp_ns: int) -> int | None:
        """Return the stamp of a topic's newest sample that is not after `stamp_ns`, also if it
        was no evidence; None where there is none."""
        found = []
        for channel in self._by_topic[topic]:
            samples = self._samples[channel.name]
            index = bisect_right(samples, stamp_ns, key=lambda sample: sample[0]) - 1
            stamps = [samples[index][0]] if index >= 0 else []
            denied_ns = self._denied_ns.get(channel.name)
            if denied_ns is not None and denied_ns <= stamp_ns:
                stamps.append(denied_ns)
            found.append(max(stamps, default=None))
        return None if None in found else min(stamp for stamp in found if stamp is not None)

    def _is_denied(self, channel: Channel, last_ns: int, now_ns: int) -> bool:
        """Whether the sensor has said, since its last sample and lately, that it knows nothing."""
        denied_ns = self._denied_ns.get(channel.name, last_ns)
        return denied_ns > last_ns and (now_ns - denied_ns) / 1e9 <= channel.max_age_s

    def assemble_at(self, stamp_ns: int, sample_stamps_ns: dict[str, int]) -> Observation:
        """Build the observation that a live node built from the samples with these stamps.

        Raises:
            ObservationUnavailable: one of those samples was never fed.
        """
        vectors = []
        for channel in self.contract.observation:
            wanted = sample_stamps_ns.get(channel.name)
            samples = self._samples[channel.name]
            index = -1
            if wanted is not None:
                index = bisect_right(samples, wanted, key=lambda sample: sample[0]) - 1
            if index < 0 or samples[index][0] != wanted:
                raise ObservationUnavailable(
                    channel.name, f"channel {channel.name} has no sample stamped {wanted} ns"
                )
            vectors.append(samples[index][1])
        vector = np.concatenate(vectors).astype(np.float32)
        return Observation(stamp_ns, vector, dict(sample_stamps_ns))
