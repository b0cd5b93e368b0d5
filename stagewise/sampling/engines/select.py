"""Choice of the engine: the requested one, or the faster of two in a timed step of each."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from stagewise.errors import InputError, LossContractError, first_line
from stagewise.losses.contract import Losses
from stagewise.sampling.config import EngineName
from stagewise.sampling.engines.batched import BatchedEngine, Program
from stagewise.sampling.engines.compiled import CompiledEngine, CompiledProgram
from stagewise.sampling.engines.sequential import SequentialEngine

_LONG_STEP = 0.25
"""Limit of a step in seconds. Longer steps are not bound by dispatch: batching cannot help and is not tried."""

_TOLERANCE, _HALF_TOLERANCE = 1e-4, 3e-2
"""Allowed difference of the engines' losses at w*, relative to 1 + |loss|, in full and in half precision."""

_SLOPE_TOLERANCE, _HALF_SLOPE_TOLERANCE = 1e-2, 0.3
"""Allowed difference of a compiled gradient from the module's own, relative to its norm, in full and half precision."""

_MOST_COMPILED = 8
"""Limit of compilations of a run's program, equal to torch.compile's own limit for a function."""


class EngineChoice:
    """Choice of the engine and its traced program, kept from probe to probe.

    ``auto`` chooses between the sequential and the batched engine. Whether compiling pays depends on all draws still to
    come, and in most runs measuring that costs as much as compiling could save.

    Attributes:
        name: the engine; None while ``auto`` has not chosen yet.
    """

    def __init__(
        self,
        asked: EngineName,
        program: Callable[..., Program],
        compiled: Callable[[], CompiledProgram],
        *,
        batch_size: int | None,
        half_precision: bool,
    ) -> None:
        """Stores the inputs; tries no engine yet.

        Args:
            asked: engine requested by the user, or stored in the checkpoint of the same run.
            program: creates a program for all chains, ``program()`` or ``program(traced=False)``.
            compiled: creates a program for a single chain.
            batch_size: of the minibatches; None if each is the whole sampling set.
            half_precision: True if losses are computed in half precision, where rounding differs more.
        """
        self.name: EngineName | None = None if asked is EngineName.auto else asked
        self._make_program = program
        self._program: Program | None = None
        self._make_compiled = compiled
        self._compiled: CompiledProgram | None = None
        self._num_compiled = 0
        self._batch_size = batch_size
        self._tolerance = _HALF_TOLERANCE if half_precision else _TOLERANCE
        self._slope_tolerance = _HALF_SLOPE_TOLERANCE if half_precision else _SLOPE_TOLERANCE

    def engine(
        self,
        sequential: SequentialEngine,
        batched: Callable[[Program], BatchedEngine],
        compiled: Callable[[CompiledProgram], CompiledEngine],
        anchor: Losses,
    ) -> SequentialEngine | BatchedEngine:
        """Returns the engine of this probe: the requested one, or the choice of ``auto``.

        Args:
            sequential: at w*.
            batched: creates the batched engine of this probe.
            compiled: creates the compiled engine of this probe.
            anchor: losses of the observed set at w*, from the module itself.

        Raises:
            InputError: the requested engine cannot run this module.
        """
        if self.name is EngineName.sequential:
            return sequential
        if self.name is EngineName.compiled:
            return self._agreeing_compiled(sequential, compiled, anchor)
        asked = self.name is not None
        if not asked and self._seconds(sequential, 1) > _LONG_STEP:
            self.name = EngineName.sequential
            return sequential
        try:
            found = self._agreeing(batched, anchor)
        except LossContractError:
            raise
        except Exception as error:  # anything that torch.func cannot transform
            if asked:
                raise InputError(
                    f"got engine={self.name}, which cannot run this module ({first_line(error, typed=True)}); expected "
                    "a loss that torch.func can transform; set engine to sequential"
                ) from error
            self.name = EngineName.sequential
            return sequential
        if not asked:
            faster = self._seconds(found, 3) < self._seconds(sequential, 3)
            self.name = EngineName.batched if faster else EngineName.sequential
        return sequential if self.name is EngineName.sequential else found

    def _agreeing_compiled(
        self,
        sequential: SequentialEngine,
        compiled: Callable[[CompiledProgram], CompiledEngine],
        anchor: Losses,
    ) -> CompiledEngine:
        """Returns the compiled engine, after comparing its losses at w* with the module's own.

        If they differ, the program of earlier probes is replaced, as for the batched engine. For a new program the
        gradient is compared too.

        Raises:
            InputError: the program cannot be compiled, still differs, or has been compiled too often.
        """
        if self._compiled is not None:
            found = compiled(self._compiled)
            difference = _difference(found.losses()[0], anchor.values)
            if difference <= self._tolerance:
                return found
            if self._num_compiled >= _MOST_COMPILED:
                raise _unfit(
                    f"its losses at the training weights differ by {difference:.2g} from the module's, which keeps "
                    f"something that changes outside its parameters and buffers; it was compiled {_MOST_COMPILED} times"
                )
        program = self._make_compiled()
        self._num_compiled += 1
        found = compiled(program)
        difference = _difference(found.losses()[0], anchor.values)
        if not difference <= self._tolerance:
            raise _unfit(f"its losses at the training weights differ by {difference:.2g} from the module's")
        slope, own = found.gradient(self._rows(found)), sequential.gradient(self._rows(sequential))
        difference = float(torch.linalg.vector_norm(slope - own) / torch.linalg.vector_norm(own).clamp(min=1e-12))
        # A gradient that is not finite passes here: the chains will be dropped.
        if difference > self._slope_tolerance:
            raise _unfit(f"its gradient at the training weights differs by {difference:.2g} from the module's")
        self._compiled = program
        return found

    def _agreeing(self, batched: Callable[[Program], BatchedEngine], anchor: Losses) -> BatchedEngine:
        """Returns the batched engine, after comparing its losses at w* with the module's own.

        If they differ, a graph of an earlier probe is traced again: the module has changing state outside its
        parameters and buffers. A module that cannot be traced is called at every step.

        Raises:
            RuntimeError: the losses still differ.
        """
        programs: list[Callable[[], Program]] = [self._make_program, lambda: self._make_program(traced=False)]
        if self._program is not None:
            kept = self._program
            programs.insert(0, lambda: kept)
        failure: Exception | None = None
        for make in programs:
            program = make()
            found = batched(program)
            try:
                difference = _difference(found.anchor_losses().values, anchor.values)
                found.gradient(self._rows(found))
            except Exception as error:
                failure = error
                continue
            if difference <= self._tolerance:
                self._program = program
                return found
            failure = RuntimeError(f"its losses at the training weights differ by {difference:.2g} from the module's")
        assert failure is not None
        raise failure

    def _rows(self, engine: SequentialEngine | BatchedEngine) -> Tensor | None:
        return None if self._batch_size is None else torch.arange(self._batch_size).expand(len(engine.state), -1)

    def _seconds(self, engine: SequentialEngine | BatchedEngine, repeats: int) -> float:
        """Measures the shortest time of a step and a record, divided by the number of chains."""
        best = float("inf")
        for _ in range(repeats):
            start = time.perf_counter()
            engine.gradient(self._rows(engine))
            # Copying to the CPU waits for a GPU.
            float(engine.losses().sum())
            best = min(best, time.perf_counter() - start)
        return best / len(engine.state)


def _unfit(why: str) -> InputError:
    return InputError(
        f"got engine=compiled, but {why}; expected a module whose losses follow from its parameters and buffers; set "
        "engine to sequential"
    )


def _difference(left: Tensor, right: Tensor) -> float:
    """Returns the largest difference relative to 1 + |loss|."""
    return float(((left - right).abs() / (1 + right.abs())).max())
