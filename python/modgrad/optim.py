"""Optimisers: which rule updates which parameters.

    optimizers = [
        optim.Muon(matrices, learning_rate=0.02),
        optim.AdamW(rest, learning_rate=1e-3),
        optim.RowwiseAdagrad(tables, learning_rate=0.1),
    ]

Learning rates are peaks; `Training.step(factor)` multiplies all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from modgrad.nn import Parameter


class Optimizer:
    """An update rule with the parameters that it updates."""

    def __init__(self, parameters: Sequence[Parameter], **rule: object) -> None:
        self.parameters = list(parameters)
        self.rule = rule


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter, arXiv 1711.05101)."""

    def __init__(
        self,
        parameters: Sequence[Parameter],
        learning_rate: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            parameters,
            rule="adam_w",
            learning_rate=learning_rate,
            beta1=betas[0],
            beta2=betas[1],
            epsilon=epsilon,
            weight_decay=weight_decay,
        )


class SGD(Optimizer):
    """Stochastic gradient descent with momentum."""

    def __init__(
        self,
        parameters: Sequence[Parameter],
        learning_rate: float = 1e-2,
        momentum: float = 0.9,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            parameters,
            rule="sgd",
            learning_rate=learning_rate,
            momentum=momentum,
            nesterov=nesterov,
            weight_decay=weight_decay,
        )


class Muon(Optimizer):
    """Momentum orthogonalised by Newton–Schulz steps, for weight matrices
    (Jordan et al., 2024)."""

    def __init__(
        self,
        parameters: Sequence[Parameter],
        learning_rate: float = 0.02,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        steps: int = 5,
    ) -> None:
        super().__init__(
            parameters,
            rule="muon",
            learning_rate=learning_rate,
            momentum=momentum,
            nesterov=nesterov,
            weight_decay=weight_decay,
            steps=steps,
        )


class RowwiseAdagrad(Optimizer):
    """Adagrad with one accumulator a row, for sparse tables (Duchi et al., 2011)."""

    def __init__(
        self,
        parameters: Sequence[Parameter],
        learning_rate: float = 0.1,
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            parameters,
            rule="rowwise_adagrad",
            learning_rate=learning_rate,
            epsilon=epsilon,
            weight_decay=weight_decay,
        )
