# SPDX-License-Identifier: Apache-2.0
"""Policies of other programs: an ONNX or TorchScript file, kept and swapped as any model is.

The file's bytes are a tensor among the weights, so that registry, checksum, announcement and swap
need to know nothing of it. It takes an observation, float32 [B, O], and gives actions [B, A] or
chunks of them [B, C, A].

ONNX is data: operators of a fixed set, which onnxruntime executes. A file that refers to others is
refused. TorchScript is a program: it is not even read unless whoever runs the policy says so
(`run_code`).
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from twinloop.models.base import ModelInvalid
from twinloop.models.ensemble import Ensemble, EnsembleConfig

MOST_BYTES = 64 * 2**20


class CodeRefused(ModelInvalid):
    """A policy is a program, and nobody said that it may run."""


class RuntimeMissing(ModelInvalid):
    """A package that executes the file is not installed."""


class ExportedConfig(EnsembleConfig):
    """Sizes and conventions of an exported policy.

    Attributes:
        file_bytes: of the exported file.
        chunk: actions ahead that one call gives.
        acts: an action is a change of the targets, or the targets; `action_mean` and
            `action_scale` give them their unit.
        clips: actions beyond ±1 are cut off there.
    """

    kind: Literal["onnx", "torchscript"]  # type: ignore[assignment]
    members: int = Field(default=1, ge=1, le=1)
    hidden: tuple[int, ...] = ()
    file_bytes: int = Field(gt=0, le=MOST_BYTES)
    chunk: int = Field(default=1, ge=1, le=200)
    acts: Literal["change", "target"] = "target"
    clips: bool = True


class Exported(Ensemble):
    """What both kinds share. As a model of dynamics it predicts that nothing moves."""

    Config: type[EnsembleConfig] = ExportedConfig
    config: ExportedConfig
    file: Tensor

    def _build(self, generator: torch.Generator) -> None:
        self.register_buffer("file", torch.zeros(self.config.file_bytes, dtype=torch.uint8))

    @property
    def content(self) -> bytes:
        """The exported file."""
        return self.file.numpy().tobytes()

    def _run(self, observation: Tensor) -> Tensor:
        """Return what the file gives: [B, O] -> [B, A] or [B, C, A]."""
        raise NotImplementedError

    @torch.no_grad()
    def act(self, observation: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return actions: [B, O] -> [B, chunk, A]. An exported policy has no noise of its own.

        Raises:
            ModelInvalid: the file gives something else.
        """
        scaled = (observation - self.observation_mean) / self.observation_scale
        found = self._run(scaled.float())
        c = self.config
        expected = (len(observation), c.chunk, c.action_size)
        if found.dim() == 2 and c.chunk == 1:
            found = found[:, None]
        if tuple(found.shape) != expected:
            raise ModelInvalid(
                f"the policy gives {list(found.shape)} for observations {list(observation.shape)}, "
                f"expected {list(expected)}"
            )
        return found.clamp(-1.0, 1.0) if c.clips else found

    def targets(self, actions: Tensor, command: Tensor) -> Tensor:
        """Return joint targets of actions: [..., A], [..., A] -> [..., A]."""
        scaled = self.action_mean + self.action_scale * actions
        return command + scaled if self.config.acts == "change" else scaled

    def predict(self, observation: Tensor, action: Tensor) -> Tensor:
        """Return the observations as they are: [E, N, O] -> [E, N, O]."""
        return observation.clone()

    def rollout(self, observation: Tensor, actions: Tensor) -> Tensor:
        """Return them H times: [E, N, O], [H, N, A] -> [H, E, N, O]."""
        return observation.expand(len(actions), *observation.shape).clone()


class OnnxPolicy(Exported):
    """A policy in ONNX, on one thread of the processor."""

    _session: Any = None

    @classmethod
    def from_tensors(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        model = super().from_tensors(config, tensors)
        model._session = _session(model.content)
        model.act(torch.zeros(1, model.observation_size))
        return model

    def _run(self, observation: Tensor) -> Tensor:
        given = {self._session.get_inputs()[0].name: observation.numpy()}
        try:
            return torch.from_numpy(self._session.run(None, given)[0])
        except Exception as error:  # each layer of the runtime has errors of its own
            raise ModelInvalid(f"the policy fails: {str(error).splitlines()[0]}") from error


class ScriptedPolicy(Exported):
    """A policy in TorchScript. Its file is a program: it stays closed until `run_code`."""

    _opened: tuple[Any, ...] = ()  # a bare module would count as a part of this one

    def run_code(self) -> None:
        """Read the file, and let it run from now on: only what one would start as a program.

        Raises:
            ModelInvalid: it is no TorchScript, or gives something else than actions.
        """
        if self._opened:
            return
        try:
            module = torch.jit.load(io.BytesIO(self.content), map_location="cpu")
        except RuntimeError as error:
            raise ModelInvalid(f"is no TorchScript: {str(error).splitlines()[0]}") from error
        self._opened = (module.eval(),)
        self.act(torch.zeros(1, self.observation_size))

    def _run(self, observation: Tensor) -> Tensor:
        if not self._opened:
            raise CodeRefused(
                "the policy is TorchScript, whose file is a program; `runs_code: true` lets it "
                "run, for files that one would start as programs alone"
            )
        try:
            found = self._opened[0](observation)
        except RuntimeError as error:
            raise ModelInvalid(f"the policy fails: {str(error).splitlines()[-1]}") from error
        if not isinstance(found, Tensor):
            raise ModelInvalid(f"the policy gives {type(found).__name__}, expected one tensor")
        return found.float()


def _session(content: bytes) -> Any:
    """Return an ONNX file as something to run.

    Raises:
        RuntimeMissing: onnxruntime is not installed.
        ModelInvalid: the file is no ONNX, needs other files, or has other inputs than one.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise RuntimeMissing(
            f"a policy in ONNX needs the packages onnx and onnxruntime, of which {error.name} is "
            "not installed; .venv/bin/pip install onnx onnxruntime adds them"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # A thread that waits by turning in circles takes the core from everything else on it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        outside = next(_outside(onnx.load_model_from_string(content).graph), None)
        if outside is not None:
            raise ModelInvalid(f"tensor {outside!r} lies in another file, expected all in one")
        session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
    except ModelInvalid:
        raise
    except Exception as error:  # each layer of the runtime has errors of its own
        raise ModelInvalid(f"is no ONNX that can run: {str(error).splitlines()[0]}") from error
    inputs = [(given.name, given.type) for given in session.get_inputs()]
    if len(inputs) != 1 or inputs[0][1] != "tensor(float)":
        raise ModelInvalid(f"inputs are {inputs}, expected one of float")
    return session


def _outside(graph: Any) -> Iterator[str]:
    """Yield the names of tensors that lie in other files, in a graph and those within it."""
    tensors = list(graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            tensors += [attribute.t, *attribute.tensors]
            for inner in (attribute.g, *attribute.graphs):
                yield from _outside(inner)
    for tensor in tensors:
        if tensor.data_location == tensor.EXTERNAL or len(tensor.external_data):
            yield tensor.name
