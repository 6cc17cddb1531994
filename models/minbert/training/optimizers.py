"""AdamW, twice: for everything, and for an embedding by row.

The second is exact, and computes only on rows that a batch touches.

Loshchilov & Hutter's AdamW moves every row at every step: one that had a gradient before keeps
moving by its momentum. A row without gradient moves in closed form, so that all its steps can be
made up for at once, when it is next looked at. With the row's moments m and v as they were k steps
ago, what it has moved by since is

    sum over i = 1..k of  lr_i (b1^i m / c1_i) / (sqrt(b2^i v / c2_i) + eps)
    =  m * sum over i of  w_i / (sqrt(v) + e_i)      w_i = lr_i (b1 / sqrt(b2))^i sqrt(c2_i) / c1_i
                                                     e_i = eps sqrt(c2_i / b2^i)

with the bias corrections c1_i and c2_i of the step. Within each of a few stretches of i, e_i is
replaced by its mean weighted with w_i: an error of second order in how little e_i changes there,
and none where sqrt(v) is well above eps. Steps behind the last stretch would move a row by less
than rounding does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from inspect import unwrap

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

_STRETCHES = np.array([1, 2, 3, 4, 6, 9, 13, 19, 28, 41, 61])  # first i of each
WORD = "encoder.embeddings.word.weight"
_LAGS = 256  # the last i: (b1 / sqrt(b2)) ** 256 is 2e-12


class AdamW(torch.optim.AdamW):
    """`torch.optim.AdamW`, with the methods that a training calls as they are inside.

    torch wraps them for torch.compile, and the wrappers import its compiler: more than a second at
    the first optimizer of every process, for what is never compiled here.

    Attributes:
        found_inf: float32 [], where the fused kernel leaves out a step if it is 1; on the device.
    """

    found_inf: Tensor | None = None

    add_param_group = unwrap(Optimizer.add_param_group)
    zero_grad = unwrap(Optimizer.zero_grad)
    step = torch.no_grad()(unwrap(torch.optim.AdamW.step))


class RowAdamW:
    """AdamW (without weight decay) of one embedding's weight, whose gradient is sparse.

    Between two steps, rows lag behind: :meth:`catch_up` before a row is read.

    Args:
        weight: [rows, width], on the CPU; its gradient comes from ``nn.Embedding(sparse=True)``.
        rate: the learning rates of steps, counted from 1; float64 [n] for int64 [n].

    Attributes:
        state: ``exp_avg`` and ``exp_avg_sq``, as AdamW calls the moments, [rows, width];
            ``reached``, int64 [rows]: the step that each row and its moments stand at.
        step: steps taken.
    """

    PARTS = ("exp_avg", "exp_avg_sq", "reached", "step")  # of a checkpoint

    def __init__(
        self,
        weight: nn.Parameter,
        rate: Callable[[np.ndarray], np.ndarray],
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self.weight = weight
        self._rate, self._betas, self._eps = rate, betas, eps
        self.step = 0
        self._tabled = np.empty((2, 0))  # of each step: w_i and e_i without their powers
        self.state = {
            "exp_avg": torch.zeros_like(weight),
            "exp_avg_sq": torch.zeros_like(weight),
            "reached": torch.zeros(len(weight), dtype=torch.int64),
        }

    @torch.no_grad()
    def catch_up(self, rows: Tensor | None = None) -> None:
        """Bring rows, int64 [n] and distinct, to the last step; None means all."""
        reached = self.state["reached"] if rows is None else self.state["reached"][rows]
        # Those that stand at 0 never had a gradient: they do not move.
        late = ((reached > 0) & (reached < self.step)).nonzero()[:, 0]
        late = late if rows is None else rows[late]
        for part in late.split(4096) if len(late) else ():  # parts that stay in the cache
            self._catch_up(part)

    def _catch_up(self, rows: Tensor) -> None:
        since = self.state["reached"][rows].numpy()
        weight, mean, square = (t[rows] for t in self._tensors())
        starts, at = np.unique(since, return_inverse=True)
        column = lambda values: torch.from_numpy(values[at, None]).to(weight.dtype)  # noqa: E731
        root = square.sqrt()
        for moved, eps in self._sums(starts):
            weight.addcdiv_(mean * column(-moved), root + column(eps))
        b1, b2 = self._betas
        lags = (self.step - starts).astype(np.float64)
        self._put(rows, weight, mean.mul_(column(b1**lags)), square.mul_(column(b2**lags)))

    def _sums(self, starts: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield, of each stretch, the sum of w_i and the weighted mean of e_i, for rows that stand
        at some steps."""
        b1, b2 = self._betas
        lags = np.arange(1, min(_LAGS, self.step - int(starts.min())) + 1)
        steps = np.minimum(starts[:, None] + lags, self.step)
        sizes, eps = self._table()[:, steps]
        sizes *= (b1 / np.sqrt(b2)) ** lags
        sizes[starts[:, None] + lags > self.step] = 0
        eps *= sizes / np.sqrt(b2) ** lags
        firsts = _STRETCHES[len(lags) >= _STRETCHES] - 1
        totals = np.add.reduceat(sizes, firsts, axis=1).T
        for total, weighted in zip(totals, np.add.reduceat(eps, firsts, axis=1).T, strict=True):
            mean = np.full(len(starts), self._eps)
            yield total, np.divide(weighted, total, out=mean, where=total > 0)

    def _table(self) -> np.ndarray:
        """Return lr sqrt(c2) / c1 and eps sqrt(c2) of all steps until now, at their numbers."""
        if self._tabled.shape[1] <= self.step:
            b1, b2 = self._betas
            steps = np.arange(1, 2 * self.step + 2)
            root = np.sqrt(1 - b2**steps)
            table = np.stack([self._rate(steps) * root / (1 - b1**steps), self._eps * root])
            self._tabled = np.pad(table, ((0, 0), (1, 0)))
        return self._tabled

    @torch.no_grad()
    def take_step(self) -> None:
        """Move the rows that have a gradient; the others only fall behind. Drops the gradient."""
        gradient = self.weight.grad
        self.weight.grad = None
        if gradient is None:
            self.step += 1
            return
        gradient = gradient.coalesce()
        rows = gradient.indices()[0]
        self.catch_up(rows)
        self.step += 1
        self._move(rows, gradient.values())

    def _move(self, rows: Tensor, gradient: Tensor) -> None:
        b1, b2 = self._betas
        weight, mean, square = (t[rows] for t in self._tensors())
        mean.lerp_(gradient, 1 - b1)
        square.mul_(b2).addcmul_(gradient, gradient, value=1 - b2)
        first, second = 1 - b1**self.step, 1 - b2**self.step
        lr = float(self._rate(np.array([self.step]))[0])
        weight.addcdiv_(mean, (square / second).sqrt_().add_(self._eps), value=-lr / first)
        self._put(rows, weight, mean, square)

    def _tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.weight, self.state["exp_avg"], self.state["exp_avg_sq"]

    def _put(self, rows: Tensor, *values: Tensor) -> None:
        for tensor, new in zip(self._tensors(), values, strict=True):
            tensor.index_copy_(0, rows, new)
        self.state["reached"][rows] = self.step

    def tensors(self) -> dict[str, Tensor]:
        """Return the state, for a checkpoint; the weight itself is not in it."""
        return self.state | {"step": torch.tensor(float(self.step))}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from a state that :meth:`tensors` returned."""
        for name, value in self.state.items():
            value.copy_(tensors[name])
        self.step = int(tensors["step"])


def clip(parameters: Iterable[nn.Parameter], most: float | None) -> Tensor:
    """Scale gradients, sparse ones too, so that their norm all together is at most ``most``, if
    that is given.

    Returns:
        The norm that they had.
    """
    gradients = []
    for p in parameters:
        if p.grad is not None and p.grad.is_sparse:
            p.grad = p.grad.coalesce()
            gradients.append(p.grad.values())
        elif p.grad is not None:
            gradients.append(p.grad)
    norm = torch.nn.utils.get_total_norm(gradients)
    if most is not None:
        torch._foreach_mul_(gradients, (most / (norm + 1e-6)).clamp(max=1.0))
    return norm
