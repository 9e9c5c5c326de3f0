# SPDX-License-Identifier: Apache-2.0
"""Settings of the sampling planners and where they are read from."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from twinloop.paths import share
from twinloop.yaml_files import read_yaml


class SamplingConfig(BaseModel):
    """What every sampling planner is told. Noise is in units in which ±1 spans the joint range."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples: int = Field(ge=2, le=100_000)
    horizon: int = Field(ge=1, le=200)
    sigma: float = Field(gt=0)
    proposal_sigma: float = Field(ge=0)  # in its place, about a model's proposal
    disagreement_weight: float = Field(ge=0)  # times the members' standard deviation of return
    range_share: float = Field(gt=0, le=1)  # of the joint range that ±1 spans about the middle


C = TypeVar("C", bound=SamplingConfig)
M = TypeVar("M", bound=BaseModel)


def load(kind: type[M], name: str, task: str = "", **changes: Any) -> M:
    """Read config/planner/NAME.yaml; on top come the section `planner: {NAME: ...}` of
    config/task/TASK.yaml, where there is one, and `changes`.

    Raises:
        FileNotFoundError: the planner has no file.
        pydantic.ValidationError: a value is missing, unknown or out of range.
    """
    values = read_yaml(share("config", "planner", f"{name}.yaml"))
    return kind(**{**values, **_of_task(task, name), **changes})


def _of_task(task: str, name: str) -> dict[str, Any]:
    try:
        content = read_yaml(share("config", "task", f"{task}.yaml"))
    except FileNotFoundError:
        return {}
    section = (content or {}).get("planner", {})
    return dict(section.get(name, {}))
