"""Construction of an intervention's plan from its arguments."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from inspect import signature
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from stagewise.checks.bounds import check_value, shown
from stagewise.checks.group_names import check_group_names
from stagewise.errors import InputError
from stagewise.interventions.influence_table import InfluenceTable
from stagewise.interventions.loader import ReweightedLoader
from stagewise.interventions.policy import ConstantFactor, Policy, check_call, check_policy, decide_weights, from_path
from stagewise.interventions.span import Span
from stagewise.interventions.strata import Strata
from stagewise.interventions.weight_plan import Plan
from stagewise.interventions.window_sources import Windows


class Mechanism(StrEnum):
    """Mechanism by which weights act.

    Members, by their names in YAML:
        sampling: groups are sampled more or less often; requires a ``ReweightedLoader``.
        loss: their losses are reweighted; the training step calls ``self.intervention_weights``.
    """

    sampling = "sampling"
    loss = "loss"


Earlier = list[Any] | str
"""Windows in the format of earlier versions, a list of spans or a path: refused with the replacement."""

_NEW = "Spans(spans), FromRun(path), Live(detector, signal) or None"


def resolve_mechanism(mechanism: Mechanism | str, groups: object) -> Mechanism:
    """Returns the mechanism, given by member or name.

    Raises:
        InputError: unknown mechanism, or groups given although the loader has them.
    """
    found = check_value("mechanism", mechanism, Mechanism, advice="choose sampling or loss")
    if found is Mechanism.sampling and groups is not None:
        raise InputError("got groups with mechanism=sampling; expected none; the ReweightedLoader has them")
    return found


def resolve_windows(windows: object, policy: object) -> Windows | None:
    """Checks the windows.

    Args:
        windows: as given.
        policy: given with them; earlier versions had the two in the other order.

    Raises:
        InputError: another type, or the format of an earlier version, with the replacement.
    """
    if isinstance(windows, Windows) or (windows is None and not isinstance(policy, (list, tuple, Path))):
        return windows
    earlier = policy if isinstance(policy, (list, tuple, Path)) else windows
    kind, field = ("FromRun", "path") if isinstance(earlier, (str, Path)) else ("Spans", "spans")
    words = shown(str(earlier) if isinstance(earlier, Path) else earlier)
    example = words if isinstance(earlier, (str, Path, list, tuple)) else "[[300, 400]]"
    raise InputError(
        f"got windows={words}; expected {_NEW}; write InterventionCallback(policy, {kind}({example})), in YAML "
        f"windows: {{class_path: stagewise.{kind}, init_args: {{{field}: {example}}}}}"
    )


def refuse_unknown(earlier: Mapping[str, Any]) -> None:
    """Refuses unknown arguments, as Python does.

    Raises:
        TypeError: there is an unknown argument.
    """
    for name in earlier:
        if name not in signature(refuse_earlier).parameters:
            raise TypeError(f"InterventionCallback.__init__() got an unexpected keyword argument {name!r}")


def refuse_earlier(
    *,
    detector: Any = None,
    signal: Any = None,
    max_windows: Any = None,
    part: Any = None,
    length: Any = None,
    shift: Any = None,
    influence: Any = None,
) -> None:
    """Refuses arguments of earlier versions, which now belong to the classes of windows.

    With this signature jsonargparse accepts the names, so that this error is raised.

    Raises:
        InputError: one is given; names the replacement.
    """
    given = [name for name, value in locals().items() if value is not None]
    if not given:
        return
    if {"detector", "signal", "max_windows"} & set(given):
        new, kind = "windows=Live(detector, signal, max_windows)", "Live"
    elif {"part", "length", "shift"} & set(given):
        new, kind = "windows=FromRun(path, part=..., length=..., shift=...)", "FromRun"
    else:
        new, kind = "windows=Spans([(300, 400)], influence=[...])", "Spans"
    raise InputError(
        f"got {', '.join(given)} for InterventionCallback; expected {new}; write it so, in YAML windows: "
        f"{{class_path: stagewise.{kind}, init_args: {{...}}}}"
    )


def resolve_policy(policy: Policy | str | None) -> Policy:
    """Returns a policy, imported if given as a dotted path.

    Raises:
        InputError: missing, or without the signature of a policy.
    """
    found = from_path(policy) if isinstance(policy, str) else policy
    if not callable(found) or isinstance(found, type):
        raise InputError(
            f"got policy {shown(found)}; expected one such as ConstantFactor({{'induction': 4.0}}); give its weights"
        )
    check_call(found)
    return found


def policy_words(policy: Policy) -> str:
    """Describes a policy, the same in every process: by its repr if it has one, else by its qualified name."""
    if type(policy).__repr__ is not object.__repr__ and not hasattr(policy, "__qualname__"):
        return repr(policy)
    named: Any = policy if hasattr(policy, "__qualname__") else type(policy)
    return f"{named.__module__}.{named.__qualname__}"


def resolve_groups(
    groups: Mapping[str, ArrayLike] | Sequence[str] | None, loader: object, policy: Policy
) -> tuple[tuple[str, ...], Strata | None]:
    """Returns the names of the groups, and the strata of the data if known.

    Args:
        groups: names, or name to bool ``[sample]`` or ``[sample, token]``; None to use those of the loader or the
            policy.
        loader: of the training data; used if it is a ``ReweightedLoader``.
        policy: used last, if it is a ``ConstantFactor``.

    Raises:
        InputError: no groups are known, or invalid names or masks.
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
        "got no groups; expected the names of the groups that batches have masks for; pass groups=['name', ...]"
    )


def make_plan(
    names: Sequence[str],
    spans: Sequence[Span] | None,
    policy: Policy,
    *,
    influence: Sequence[InfluenceTable | None] | None = None,
    max_steps: int | None,
    strata: Strata | None,
) -> Plan:
    """Builds a plan and checks that its weights are feasible, as far as known before training.

    Args:
        names: the groups.
        spans: windows; None for live windows.
        policy: sets the weights.
        influence: for fixed windows, a table (or None) for each.
        max_steps: of the run; None if unknown.
        strata: of the data; None if unknown.

    Raises:
        InputError: overlapping windows or windows beyond the run, unknown groups, weights that are negative or leave
            nothing, or influence tables that do not fit.
    """
    if spans is None:
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
    """Resumes the plan of a checkpoint.

    Args:
        plan: of this run.
        state: of the checkpoint; None if it has no intervention.
        step: at which training resumes.

    Raises:
        InputError: the plans differ.
    """
    if state is not None:
        plan.load_state_dict(state)
    elif plan.changes and plan.changes[0].step < step:
        raise InputError(
            f"got a window from step {plan.changes[0].step} on in a run resumed at step {step} from a checkpoint "
            "without an intervention; expected later windows; move them, or start a new run"
        )
