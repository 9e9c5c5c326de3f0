# SPDX-License-Identifier: Apache-2.0
"""The gate of LQR-FLM's models: whether what they say of the running policy's episodes comes true.

A policy was improved on its dynamics; where these do not hold on episodes that were held out, what
it promises is worth nothing. The figures of the usual gate are kept beside the verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from twinloop.contract import Contract
from twinloop.learning.episode import Episode
from twinloop.learning.gate import HORIZON, Decision, GateConfig, NotEnoughHeldOut, score
from twinloop.learning.linear_actor import begun, rollouts_of
from twinloop.models.linear_gaussian import LinearGaussian
from twinloop.models.linear_latent import LinearLatent

Array = NDArray[np.float64]


def state_error(states: Array, actions: Array, dynamics: LinearGaussian | None) -> float:
    """Return the root mean square error of states after seven open-loop steps, in units of how
    much they vary over the rollouts.

    Args:
        states: of whole episodes [N, T+1, X].
        actions: [N, T, U].
        dynamics: predict, each step with its own; None: no motion.
    """
    steps = actions.shape[1]
    unit = states.reshape(-1, states.shape[2]).std(axis=0)
    moves = unit > 1e-6
    squares = []
    for start in range(steps - HORIZON + 1):
        state = states[:, start]
        for t in range(start, start + HORIZON if dynamics is not None else start):
            assert dynamics is not None
            joint = np.concatenate([state, actions[:, t]], axis=1)
            state = joint @ dynamics.transition[t].T + dynamics.offset[t]
        miss = (state - states[:, start + HORIZON])[:, moves] / unit[moves]
        squares.append(np.square(miss).mean())
    return float(np.sqrt(np.mean(squares)))


def judge_policy(
    candidate: LinearLatent,
    running: LinearLatent | None,
    running_version: str | None,
    held_out: Sequence[Episode],
    contract: Contract,
    config: GateConfig,
) -> Decision:
    """Compare a candidate's dynamics with no motion, and with those of the running model.

    Raises:
        NotEnoughHeldOut: there is too little to judge by.
    """
    new = score(candidate, held_out, contract, config)
    still = score(None, held_out, contract, config)
    old = None if running is None else score(running, held_out, contract, config)
    steps = candidate.config.steps
    whole = [begun(episode, steps) for episode in held_out if len(episode) >= steps]
    if not whole:
        raise NotEnoughHeldOut(f"no held-out episode has {steps} steps")
    states, actions = rollouts_of(whole, candidate.encoding)
    error = state_error(states, actions, candidate.dynamics)
    bound = state_error(states, actions, None)
    against = "of no motion"
    if running is not None and running.config.steps == steps:
        theirs = (1 + config.band_tolerance) * state_error(states, actions, running.dynamics)
        if theirs < bound:
            bound = theirs
            against = f"of {running_version} and {config.band_tolerance:.0%} more"
    passes = new.is_finite and error <= bound
    return Decision(
        verdict="promoted" if passes else "rejected",
        reason=f"seven-step error of the states is {error:.3f}, {bound:.3f} {against}",
        compared_with=running_version if running is not None else None,
        candidate=new,
        running=old,
        still=still,
        held_out=tuple(str(episode.meta.get("episode_id", "")) for episode in held_out),
        margins=config,
        decided_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
