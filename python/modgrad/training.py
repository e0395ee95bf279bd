"""Training a traced loss: `backward`, then `step`, in plain sight of the loop.

    training = Training(model.loss, optimizers, inputs={...}, clip_norm=1.0)
    while run.continues():
        loss = training.backward(tokens=tokens, targets=targets)
        training.step(factor)

Gradients of several `backward` calls before a `step` are averaged.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from modgrad import _core
from modgrad.errors import UsageError
from modgrad.machine import resolve_device, resolve_precision, resolve_threads
from modgrad.optim import Optimizer
from modgrad.program import Array, Spec, Tensor, trace


class Training:
    """A program's loss with its parameters, gradients and optimisers.

    `function` returns the scalar loss, or a mapping with the scalar under
    "loss" and other outputs to look at with `output`.
    """

    def __init__(
        self,
        function: Callable[..., Tensor | Mapping[str, Tensor]],
        optimizers: Sequence[Optimizer],
        *,
        inputs: Mapping[str, Spec],
        clip_norm: float | None = None,
        precision: str = "auto",
        threads: int | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.device = resolve_device(device)
        self.program = trace(function, **inputs)
        self.precision = resolve_precision(precision, self.device)
        self.threads = resolve_threads(threads)
        outputs = set(self.program.core.outputs)
        loss = "output" if outputs == {"output"} else "loss"
        self.core = _core.Training(
            self.program.core,
            loss,
            json.dumps(self._groups(optimizers)),
            self.precision,
            self.threads,
            clip_norm,
            seed,
            sorted(outputs - {loss}),
            self.device,
        )
        self.core.set_parameters(self.program.weights())
        self.averaging = False

    def _groups(self, optimizers: Sequence[Optimizer]) -> list[dict[str, object]]:
        read = self.program.parameters
        groups: list[dict[str, object]] = []
        for optimizer in optimizers:
            names = [p.name for p in optimizer.parameters if p.name in read]
            if names:
                groups.append({"rule": optimizer.rule, "parameters": names})
        if not groups:
            raise UsageError("no optimizer has a parameter that the loss depends on")
        return groups

    def backward(self, **inputs: Array) -> float:
        """Runs forward and backward, adds to the gradients, returns the loss."""
        return self.core.backward(inputs)

    def step(self, factor: float = 1.0) -> None:
        """Updates all parameters, every learning rate times `factor`.

        A clipped gradient that is not finite changes nothing and is an error: here, or on a
        GPU, which the host does not wait for, at the next `backward` or look at weights.
        """
        self.core.update(factor)

    def gradient_norm(self) -> float | None:
        """The global norm of the last step's gradient before clipping, where it is clipped.

        0 before the first step. Waits for a GPU.
        """
        return self.core.gradient_norm()

    def average(self, decay: float) -> None:
        """Moves a running average of the dense parameters towards their values.

        From the first call on, the average is what is saved for evaluation.
        """
        self.core.average(decay)
        self.averaging = True

    def output(self, name: str) -> Array:
        """Another output of the last `backward`."""
        return self.core.output(name)

    @property
    def steps(self) -> int:
        """Updates done so far, those before a resume included."""
        return self.core.step

    @property
    def parameters_count(self) -> int:
        """Trainable elements."""
        return sum(p.value.size for p in self.program.parameters.values() if p.trainable)

    def weight(self, name: str) -> Array:
        """A parameter as it is trained, not averaged."""
        return self.core.parameter(name)

    def weights(self) -> dict[str, Array]:
        """Parameters as they should be evaluated, by name."""
        return self.core.parameters(True)

    def state(self) -> dict[str, Array]:
        """What an exact resume needs beside `weights`, by name."""
        state = self.core.state()
        if self.averaging:
            # The average is what `weights` gives; the values behind it are kept here.
            state = {name: value for name, value in state.items() if name[:8] != "average/"}
            averaged = {name[6:] for name in state if name.startswith("first/")}
            raw = self.core.parameters(False)
            state |= {f"raw/{name}": raw[name] for name in averaged}
        return state

    def restore(self, weights: Mapping[str, Array], state: Mapping[str, Array], steps: int) -> None:
        """Continues where `weights` and `state` were taken."""
        raw = {name[4:]: value for name, value in state.items() if name.startswith("raw/")}
        kept = {name: value for name, value in state.items() if name[:4] != "raw/"}
        if raw:
            kept |= {f"average/{name}": weights[name] for name in raw}
            self.averaging = True
        self.core.set_parameters({**weights, **raw})
        self.core.set_state(kept)
        self.core.step = steps
