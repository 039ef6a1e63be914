"""Which leaves are specialised, and why the others are not.

A leaf is specialised when the network of one sample uses it exactly once, by an operation that
has a rule, reached through nothing but reshapes, transposes and casts. A second use would add
to the gradient before the magnitude is taken, so every use counts, wherever it is.
"""

import math
from typing import Any, NamedTuple

from mas_jax.fused import jaxprs, rules
from mas_jax.fused.rules import Rule


class Use(NamedTuple):
    """One use of a leaf: by an operation that has a rule, or for what reason by none."""

    rule: Rule | None
    reason: str
    output_size: int = 0  # numbers that the operation returns for a sample
    layers: int = 1  # of how many layers in a stack that a scan runs through


class LeafPlan(NamedTuple):
    """What becomes of one leaf."""

    rule: Rule | None  # None: it falls back, or is not used at all
    reason: str
    uses: tuple[Use, ...]

    @property
    def falls_back(self) -> bool:
        """Whether its gradients are had one per sample."""
        return self.rule is None and bool(self.uses)


class Plan(NamedTuple):
    """What becomes of every leaf, and what the fallback holds."""

    leaves: tuple[LeafPlan, ...]
    fallback_bytes: int  # per sample
    large_bytes: int  # the same without gradients no larger than the activations they are had from


class _Found(NamedTuple):
    """What following the leaves through a jaxpr found."""

    uses: list[tuple[int, Use]]  # (number of the leaf, the use)
    outputs: list[int | None]  # which outputs are leaves, reshaped at most
    derived_bytes: int  # of the largest array computed from parameters alone


def make_plan(closed: Any, num_leaves: int) -> Plan:
    """The plan for a single-sample jaxpr whose first `num_leaves` inputs are the leaves."""
    jaxpr = closed.jaxpr
    inputs = jaxpr.invars[:num_leaves]
    found = _follow(jaxpr, {var: i for i, var in enumerate(inputs)}, set(jaxpr.invars[num_leaves:]))
    uses: list[list[Use]] = [[] for _ in inputs]
    for leaf, use in found.uses:
        uses[leaf].append(use)
    for leaf in found.outputs:
        if leaf is not None:
            uses[leaf].append(Use(None, "returned as it is"))
    leaves = tuple(_leaf_plan(uses_of_leaf) for uses_of_leaf in uses)
    falling = [(var, leaf) for var, leaf in zip(inputs, leaves, strict=True) if leaf.falls_back]
    # A weight computed from leaves that fall back has a cotangent per sample, too.
    derived = found.derived_bytes if falling else 0
    return Plan(
        leaves,
        derived + sum(_bytes(var) for var, _ in falling),
        derived + sum(_bytes(var) for var, leaf in falling if _is_large(var, leaf)),
    )


def _is_large(var: Any, leaf: LeafPlan) -> bool:
    """Whether its gradient for a sample is larger than what the leaf's operations return for it.

    That of a bias is not: the network holds as much for each sample anyway.
    """
    return var.aval.size > sum(use.output_size * use.layers for use in leaf.uses)


def _leaf_plan(uses: list[Use]) -> LeafPlan:
    """What becomes of a leaf with these uses."""
    if not uses:
        return LeafPlan(None, "not used: its importance is 0", ())
    if len(uses) > 1:
        names = (use.rule.name if use.rule else use.reason for use in uses[:3])
        kinds = ", ".join(name.removeprefix("used by ") for name in names)
        more = ", …" if len(uses) > 3 else ""
        return LeafPlan(None, f"used {len(uses)} times: {kinds}{more}", tuple(uses))
    return LeafPlan(uses[0].rule, uses[0].reason, tuple(uses))


def _bytes(var: Any) -> int:
    """The size of an array."""
    return math.prod(var.aval.shape) * var.aval.dtype.itemsize


def _follow(jaxpr: Any, leaves: dict[Any, int], varying: set[Any]) -> _Found:
    """Follow `leaves` (variable -> number); `varying` are variables that depend on the sample."""
    leaves, varying, derived = dict(leaves), set(varying), set(leaves)
    uses: list[tuple[int, Use]] = []
    derived_bytes = 0
    for eqn in jaxpr.eqns:
        atoms = [None if jaxprs.is_literal(atom) else atom for atom in eqn.invars]
        used = {i: leaves[atom] for i, atom in enumerate(atoms) if atom in leaves}
        if used:
            found = _use(eqn, used, [atom in varying for atom in atoms])
            uses += found.uses
            derived_bytes = max(derived_bytes, found.derived_bytes)
            aliases = zip(eqn.outvars, found.outputs, strict=True)
            leaves |= {var: leaf for var, leaf in aliases if leaf is not None}
        if not varying.isdisjoint(atoms):
            varying.update(eqn.outvars)
        elif not derived.isdisjoint(atoms):
            derived.update(eqn.outvars)
            computed = [_bytes(var) for var in eqn.outvars if var not in leaves]
            derived_bytes = max(derived_bytes, *computed, 0)
    outputs = [None if jaxprs.is_literal(atom) else leaves.get(atom) for atom in jaxpr.outvars]
    return _Found(uses, outputs, derived_bytes)


def _use(eqn: Any, used: dict[int, int], varying: list[bool]) -> _Found:
    """What one equation makes of the leaves among its inputs (`used`: input -> leaf)."""
    nothing: list[int | None] = [None] * len(eqn.outvars)
    if jaxprs.keeps_every_entry(eqn):
        return _Found([], [used[0]], 0)
    body = jaxprs.call_body(eqn)
    if body is not None and eqn.primitive.name == "scan":
        return _follow_scan(eqn, body.jaxpr, used, varying)
    if body is not None:
        inner = body.jaxpr.invars
        varying_inside = {var for var, varies in zip(inner, varying, strict=True) if varies}
        return _follow(body.jaxpr, {inner[i]: leaf for i, leaf in used.items()}, varying_inside)
    output_size = sum(var.aval.size for var in eqn.outvars)
    if len(used) > 1:
        leaves = "a leaf with itself" if len(set(used.values())) == 1 else "two leaves"
        use = Use(None, f"{eqn.primitive.name} of {leaves}", output_size)
        return _Found([(leaf, use) for leaf in used.values()], nothing, 0)
    ((operand, leaf),) = used.items()
    rule = rules.match(eqn, operand)
    found = (None, rule) if isinstance(rule, str) else (rule, "used once")
    use = Use(*found, output_size)
    return _Found([(leaf, use)], nothing, 0)


def _follow_scan(eqn: Any, body: Any, used: dict[int, int], varying: list[bool]) -> _Found:
    """A scan: what it scans over is used once per layer, what it carries or closes over is not."""
    scan = jaxprs.scan_of(eqn, body)
    first_layered = scan.num_consts + scan.num_carry
    uses, layered = [], {}
    for operand, leaf in used.items():
        if operand >= first_layered:
            layered[body.invars[operand]] = leaf
        else:
            uses.append((leaf, Use(None, "used at every step of a scan")))
    carried = range(scan.num_consts, first_layered)
    varying_inside = {
        var
        for i, var in enumerate(body.invars)
        if var not in layered and (varying[i] or (i in carried and any(varying)))
    }
    found = _follow(body, layered, varying_inside)
    uses += [
        (leaf, use._replace(layers=use.layers * eqn.params["length"])) for leaf, use in found.uses
    ]
    uses += [(leaf, Use(None, "returned by a scan")) for leaf in found.outputs if leaf is not None]
    return _Found(uses, [None] * len(eqn.outvars), found.derived_bytes)
