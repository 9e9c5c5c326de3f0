# SPDX-License-Identifier: Apache-2.0
"""Paths free of collision in the arm's joint space: OMPL's RRT-Connect, then shortcuts."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ompl import base, geometric, util

from twinloop.motion.semantics import Limits
from twinloop.motion.world import REACH, World

Array = NDArray[np.float64]

# Joints are scaled by their reach, so that a length in OMPL's space is about how far the arm moves.
SEARCH_STEP_M = 0.02  # between checks along an edge, to begin with
_SHORTCUTS = 40

util.setLogLevel(util.LogLevel.LOG_ERROR)
# One seed for the process: equal runs of it search alike.
util.RNG.setSeed(1)


def find_path(
    world: World,
    start: Array,
    goals: list[Array],
    limits: Limits,
    margin_m: float,
    step_m: float,
    deadline: float,
) -> list[Array] | None:
    """Return way-points [7], rad, from the start to one of the goals, or None.

    Edges are checked every few centimetres of motion: a trajectory made of the path is to be
    checked more finely.

    Args:
        goals: free of collision, as the start.
        step_m: between checks.
        deadline: on the clock of `time.monotonic`.
    """
    for goal in goals:
        if edge_is_free(world, start, goal, margin_m, step_m):
            return [start, goal]
    space = base.RealVectorStateSpace(7)
    bounds = base.RealVectorBounds(7)
    for joint in range(7):
        bounds.setLow(joint, float(limits.lower[joint] * REACH[joint]) - 1e-9)
        bounds.setHigh(joint, float(limits.upper[joint] * REACH[joint]) + 1e-9)
    space.setBounds(bounds)
    information = base.SpaceInformation(space)
    information.setStateValidityChecker(lambda state: world.is_free(_joints(state), margin_m))
    information.setStateValidityCheckingResolution(step_m / space.getMaximumExtent())
    information.setup()
    problem = base.ProblemDefinition(information)
    problem.addStartState(_state(space, start))
    ends = base.GoalStates(information)
    for goal in goals:
        ends.addState(_state(space, goal))
    problem.setGoal(ends)
    planner = geometric.RRTConnect(information)
    planner.setProblemDefinition(problem)
    planner.setup()
    remaining = deadline - time.monotonic()
    if remaining <= 0.0 or not planner.solve(base.timedPlannerTerminationCondition(remaining)):
        return None
    if not problem.hasExactSolution():
        return None
    path = problem.getSolutionPath()
    simplifier = geometric.PathSimplifier(information)
    simplifier.reduceVertices(path)
    simplifier.partialShortcutPath(path, _SHORTCUTS, _SHORTCUTS // 2)
    simplifier.reduceVertices(path)
    found = [_joints(path.getState(index)) for index in range(path.getStateCount())]
    return [start, *found[1:-1], found[-1]]


def edge_is_free(world: World, first: Array, last: Array, margin_m: float, step_m: float) -> bool:
    """Whether the straight move between two joint positions is free, checked every `step_m`.

    The ends are not checked again.
    """
    steps = int(np.ceil(np.linalg.norm((last - first) * REACH) / step_m))
    # Halves first: a middle is likelier in collision than a neighbour of a free end.
    order = sorted(range(1, steps), key=lambda k: -(k & -k))
    return all(world.is_free(first + (last - first) * (k / steps), margin_m) for k in order)


def _joints(state: Any) -> Array:
    return np.array([state[joint] for joint in range(7)]) / REACH


def _state(space: Any, q: Array) -> Any:
    state = space.allocState()
    for joint in range(7):
        state[joint] = float(q[joint] * REACH[joint])
    return state
