"""From the arguments of an intervention to its plan."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from stagewise.checks.bounds import check_value, shown
from stagewise.checks.group_names import check_group_names
from stagewise.errors import InputError
from stagewise.interventions.influence_table import InfluenceTable
from stagewise.interventions.loader import ReweightedLoader
from stagewise.interventions.plan import Plan
from stagewise.interventions.policy import ConstantFactor, Policy, check_call, check_policy, decide_weights, from_path
from stagewise.interventions.span import Part, Span, read_spans
from stagewise.interventions.strata import Strata


class Mechanism(StrEnum):
    """How weights act.

    Members are named as the YAML writes them:
        sampling: groups are drawn more or less often; the training data are a ``ReweightedLoader``.
        loss: their losses count more or less; the training step asks ``self.intervention_weights``.
    """

    sampling = "sampling"
    loss = "loss"


Windows = Sequence[Span | tuple[int, int]] | str | Path | None
"""Spans, or (start, end); the folder or ``summary.json`` of an earlier run; None for live windows."""


def settle_mechanism(mechanism: Mechanism | str, groups: object) -> Mechanism:
    """How weights act.

    Raises:
        InputError: no such way, or groups where the loader has them.
    """
    found = check_value("mechanism", mechanism, Mechanism, advice="choose sampling or loss")
    if found is Mechanism.sampling and groups is not None:
        raise InputError("got groups with mechanism=sampling; expected none; the ReweightedLoader has them")
    return found


def settle_spans(windows: Windows, *, part: Part | str, length: int | None, shift: int) -> tuple[Span, ...] | None:
    """Spans by hand or from an earlier run; None for live windows.

    Args:
        windows: see :data:`Windows`.
        part: with a path, which steps of each transition.
        length: with a path and ``part="fixed"``, steps.
        shift: with a path, steps by which spans are moved.

    Raises:
        InputError: no spans, options that say nothing here, or a file that cannot be used.
    """
    which: Part = check_value("part", part, Part, advice="choose one")
    if isinstance(windows, (str, Path)):
        return read_spans(windows, part=which, length=length, shift=shift)
    if which != Part.window or length is not None or shift:
        raise InputError(
            f"got part={which}, length={length}, shift={shift} without the path of an earlier run; expected the "
            "defaults; leave them out, or give windows as a path"
        )
    if windows is None:
        return None
    if not isinstance(windows, Sequence):
        raise InputError(f"got windows={shown(windows)}; expected a list of spans, a path, or None for live windows")
    if not windows:
        raise InputError("got no window; expected at least one; give spans, a path, or None for live windows")
    spans = []
    for window in windows:
        if isinstance(window, Span):
            spans.append(window)
        elif isinstance(window, (tuple, list)) and len(window) == 2:
            spans.append(Span(*window))
        else:
            raise InputError(f"got window {shown(window)}; expected a Span or (start, end), training steps")
    return tuple(spans)


def settle_policy(policy: Policy | str | None) -> Policy:
    """A policy as it is, or by its dotted path.

    Raises:
        InputError: there is none, or it cannot be called as a policy is.
    """
    found = from_path(policy) if isinstance(policy, str) else policy
    if not callable(found) or isinstance(found, type):
        raise InputError(f"got policy {shown(found)}; expected one such as ConstantFactor({{'induction': 4.0}})")
    check_call(found)
    return found


def policy_words(policy: Policy) -> str:
    """A policy's name, the same in every process: with its settings where they show, else by where it is defined."""
    if type(policy).__repr__ is not object.__repr__ and not hasattr(policy, "__qualname__"):
        return repr(policy)
    named: Any = policy if hasattr(policy, "__qualname__") else type(policy)
    return f"{named.__module__}.{named.__qualname__}"


def settle_groups(
    groups: Mapping[str, ArrayLike] | Sequence[str] | None, loader: object, policy: Policy
) -> tuple[tuple[str, ...], Strata | None]:
    """Names of the groups, and the data sorted by them where they are known.

    Args:
        groups: names, or name to bool ``[sample]`` or ``[sample, token]``; None to ask the others.
        loader: of the training data; asked where it is a ``ReweightedLoader``.
        policy: asked last, where it is a ``ConstantFactor``.

    Raises:
        InputError: nobody knows, names that cannot be shown, or masks that do not fit.
    """
    if isinstance(groups, Mapping):
        strata = Strata(groups)
        return strata.names, strata
    if groups is not None:
        return check_group_names(groups), None
    if isinstance(loader, ReweightedLoader):
        return loader.strata.names, loader.strata
    if isinstance(policy, ConstantFactor):
        return check_group_names(policy.weights), None
    raise InputError(
        "got no groups; expected the names of those that the batches' masks tell; pass groups=['name', ...]"
    )


def make_plan(
    names: Sequence[str],
    spans: Sequence[Span] | None,
    policy: Policy,
    *,
    influence: Sequence[InfluenceTable | None] | None,
    max_steps: int | None,
    strata: Strata | None,
) -> Plan:
    """A plan whose weights can be followed, as far as that can be known before training.

    Args:
        names: the groups.
        spans: windows; None for live ones.
        policy: decides the weights.
        influence: for fixed windows, a table (or None) for each.
        max_steps: of the run; None where it is not known.
        strata: of the data; None where they are not known.

    Raises:
        InputError: overlapping windows or windows beyond the run, unknown groups, weights that are negative or leave
            nothing, or influence tables that do not fit.
    """
    if spans is None:
        if influence is not None:
            raise InputError("got influence tables with live windows; expected none; pass them to open()")
        check_policy(policy, names)
        if strata is not None and isinstance(policy, ConstantFactor):
            strata.rho(decide_weights(policy, names, window=0, step=0))
        return Plan(names)
    plan = Plan.from_spans(names, spans, policy, influence=influence, max_steps=max_steps)
    for change in plan.changes:
        if strata is not None:
            strata.rho(change.weights)
    return plan


def take_up(plan: Plan, state: Mapping[str, Any] | None, step: int) -> None:
    """Go on with the plan of a checkpoint.

    Args:
        plan: of this run.
        state: the checkpoint's; None where training goes on from one without an intervention.
        step: at which training goes on.

    Raises:
        InputError: the plans differ.
    """
    if state is not None:
        plan.load_state_dict(state)
    elif plan.changes and plan.changes[0].step < step:
        raise InputError(
            f"got a window from step {plan.changes[0].step} on in a run that goes on at step {step} from a checkpoint "
            "without an intervention; expected windows that are still to come; move them, or start the run anew"
        )
