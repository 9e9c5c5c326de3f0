# SPDX-License-Identifier: Apache-2.0
"""Hot swap: a new model is read, checked and warmed up beside the control loop, and taken whole.

The control loop calls `take` between two steps; all else happens in a thread of its own. A model
that is refused changes nothing: the running one stays.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from pathlib import Path

import torch

from twinloop.contract import Contract
from twinloop.learning.model_file import load_model
from twinloop.models import Ensemble, ModelInvalid

_WARM_UP_ROWS = 64


class ModelSlot:
    """Holds the next model of a contract until the control loop takes it.

    Methods may be called from any thread; none but `load` and `close` waits.

    Args:
        contract: of every model that is taken.
        check: is given each offered model before it may be taken, beside the control loop; what it
            raises refuses the model.
    """

    def __init__(self, contract: Contract, check: Callable[[Ensemble], None] | None = None) -> None:
        self._contract = contract
        self._check = check
        self._offers: queue.SimpleQueue[tuple[Path, str] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._ready: tuple[Ensemble, str] | None = None
        self._refusal: str | None = None
        self._thread: threading.Thread | None = None
        self._last_offer: tuple[Path, str] | None = None
        self._closed = False

    def load(self, path: Path | str) -> tuple[Ensemble, str]:
        """Read, check and warm up a model now, and return it with its version.

        Raises:
            ModelInvalid: the model cannot be used; the message says why.
        """
        loaded = load_model(path, self._contract)
        _warm_up(loaded.model, str(path))
        return loaded.model, loaded.version

    def offer(self, path: Path | str, version: str = "") -> None:
        """Have a model read in the background; of several offers the newest counts.

        Offering again what was offered last does nothing, so that an announcement that arrives
        twice swaps once.
        """
        path = Path(path)
        offer = (path, version or path.name)
        with self._lock:
            if self._closed or offer == self._last_offer:
                return
            self._last_offer = offer
            self._offers.put(offer)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="model_slot", daemon=True)
                self._thread.start()

    def take(self) -> tuple[Ensemble, str] | None:
        """Return the new model and its version once, None while there is none."""
        with self._lock:
            ready, self._ready = self._ready, None
        return ready

    def refusal(self) -> str | None:
        """Return once why the newest offer was refused, None where none was."""
        with self._lock:
            refusal, self._refusal = self._refusal, None
        return refusal

    def close(self) -> None:
        """End the thread, and wait for a model that is being read."""
        with self._lock:
            self._closed = True
            thread = self._thread
        if thread is not None:
            self._offers.put(None)
            thread.join()

    def _work(self) -> None:
        while True:
            offer = self._offers.get()
            while not self._offers.empty():
                offer = self._offers.get()
            if offer is None:
                return
            path, version = offer
            try:
                model, _ = self.load(path)
                if self._check is not None:
                    self._check(model)
            except Exception as error:
                # Whatever is wrong with a model must not end the thread that reads the next one.
                reason = str(error) if isinstance(error, ValueError) else repr(error)
                with self._lock:
                    self._refusal = f"{version}: {reason}"
                    # It may be mended and offered again.
                    if self._last_offer == offer:
                        self._last_offer = None
            else:
                with self._lock:
                    self._ready, self._refusal = (model, version), None


@torch.no_grad()
def _warm_up(model: Ensemble, name: str) -> None:
    """Predict once: allocates what a first call allocates, and refuses a model that gives NaN."""
    observation = model.observation_mean.expand(model.members, _WARM_UP_ROWS, -1)
    action = model.action_mean.expand(_WARM_UP_ROWS, -1)
    if not bool(torch.isfinite(model.predict(observation, action)).all()):
        raise ModelInvalid(f"{name}: predicts NaN or infinite values for a usual observation")
