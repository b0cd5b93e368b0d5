"""Noise of sharded weights: the same numbers for each row of a parameter, whichever process holds it."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.streams import Streams, noise_generator

_BLOCK_NUMBERS = 2**18
"""Numbers drawn from one seed, one row or more. Draws depend on this figure."""


@dataclass(frozen=True, eq=False)
class Stretch:
    """Rows of a parameter in flat weights.

    Attributes:
        number: of the parameter, in the module's order.
        rows: number of rows of the whole parameter.
        width: numbers per row.
        first: first row held by this process.
        count: number of rows held by this process.
        index: ``[entry]``, positions in the flattened rows held here; None for all.
    """

    number: int
    rows: int
    width: int
    first: int
    count: int
    index: Tensor | None = None


class RowStreams(Streams):
    """Noise and minibatches of some chains over weights that are spread over processes by rows.

    Each block of rows of a parameter has its own seed, made from the chain's seed and the numbers of the noise, the
    parameter and the block. Draws therefore do not depend on the number of processes, and no process draws the noise of
    all. The draws differ from those of the same seed without shards.
    """

    def __init__(
        self,
        config: SGLDConfig,
        chains: Sequence[int],
        step: int,
        like: Tensor,
        num_sampling: int,
        choices: Tensor | None = None,
        *,
        layout: Sequence[Stretch],
    ) -> None:
        """Starts the streams, see :class:`~stagewise.sampling.streams.Streams`.

        Args:
            config: seed and sizes.
            chains: numbers of the chains.
            step: training step.
            like: flat weights ``[weight]`` of this process.
            num_sampling: samples of the sampling set.
            choices: see :class:`~stagewise.sampling.streams.Streams`.
            layout: rows of parameters in ``like``, in order.
        """
        # The parent's noise is not used: a block of one number.
        super().__init__(config, chains, step, like.new_empty(1), num_sampling, choices)
        self._seeds = [(config.seed, chain) for chain in chains]
        self._at = None if config.common_noise else step
        self._layout = layout
        self._number = 0
        # Two noises are in use at a time: of this step and the next.
        self._held = [like.new_empty(len(chains), len(like)) for _ in range(2)]

    def noise(self) -> Tensor:
        """Returns the next standard normal noise ``[chain, weight]``, a buffer overwritten by the second next call."""
        held = self._held[self._number % 2]
        for row, (seed, chain) in zip(held, self._seeds, strict=True):
            start = 0
            for stretch in self._layout:
                drawn = self._rows(stretch, (seed, chain), row)
                row[start : start + len(drawn)] = drawn
                start += len(drawn)
        self._number += 1
        return held

    def two_noises(self) -> tuple[Tensor, Tensor]:
        """Returns the noises of this step and the next."""
        last = self.upcoming()
        self._last = self.noise()
        return last, self._last

    def _rows(self, stretch: Stretch, key: tuple[int, int], like: Tensor) -> Tensor:
        """Returns the noise of the entries of a stretch, ``[entry]``."""
        size = max(1, _BLOCK_NUMBERS // stretch.width)
        stop = stretch.first + stretch.count
        out = like.new_empty(stretch.count, stretch.width)
        for block in range(stretch.first // size, -(-stop // size)):
            start = block * size
            generator = noise_generator(like.device, key, self._at, (self._number, stretch.number, block))
            drawn = like.new_empty(min(size, stretch.rows - start), stretch.width).normal_(generator=generator)
            low, high = max(start, stretch.first), min(start + len(drawn), stop)
            out[low - stretch.first : high - stretch.first] = drawn[low - start : high - start]
        flat = out.view(-1)
        return flat if stretch.index is None else flat[stretch.index]
