"""What a model costs: MACs of its encoder, parameters, bytes.

The cost model is Kwon et al.'s (arXiv 2204.09656): attention and FFN of the encoder count; embeddings, LayerNorm,
biases, GELU, softmax, pooler and classifier are free. Lengths may be fractional, because the mean length is. What
projects relative positions is free too: it reads no tokens, so a graph holds what it gives, or a session computes it once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, nn

from compressor.model.groups import ParamSlice, PrunableGroup, UnitKind


def unit_macs(model: nn.Module, group: PrunableGroup, sequence: float) -> float:
    """Return the MACs that one unit of a group costs per sample of ``sequence`` tokens.

    With hidden size D and head width d this is 4 T D d + 2 T^2 d for a head, T P d more where its scores have products
    with P relative positions, and 2 T D for a neuron (3 T D for a gated one), read off the slices' Linear layers. A window
    of attention saves nothing: the graph masks what lies outside. What an emptied group's units once cost is unknown, hence 0.
    """
    if not group.units:
        return 0.0
    attention = sequence * (2.0 * sequence + group.position_keys) * group.width if group.kind == "heads" else 0.0
    read = [piece for piece in group.producers if piece.reads != "positions"]
    return sequence * _weights(model, [*read, group.consumer]) + attention


def unit_parameters(model: nn.Module, group: PrunableGroup) -> float:
    """Return the parameters that one unit of a group has, biases included; 0 for an emptied group."""
    if not group.units:
        return 0.0
    biased = (piece for piece in group.producers if model.get_submodule(piece.module).bias is not None)
    return float(_weights(model, [*group.producers, group.consumer]) + sum(piece.width for piece in biased))


def _weights(model: nn.Module, pieces: Iterable[ParamSlice]) -> int:
    weights = 0
    for piece in pieces:
        linear = model.get_submodule(piece.module)
        other = linear.in_features if piece.dim == 0 else linear.out_features
        weights += piece.width * int(other)  # type: ignore[arg-type]  # an attribute of nn.Linear
    return weights


def unit_prices(model: nn.Module, groups: Sequence[PrunableGroup], sequence: float) -> dict[UnitKind, float]:
    """Return the MACs of one unit of each kind; a family's layers are alike, so one price serves all of them."""
    return {group.kind: unit_macs(model, group, sequence) for group in groups if group.units}


def parameter_prices(model: nn.Module, groups: Sequence[PrunableGroup]) -> dict[UnitKind, float]:
    """Return the parameters of one unit of each kind, as ``unit_prices`` does its MACs."""
    return {group.kind: unit_parameters(model, group) for group in groups if group.units}


def encoder_macs(model: nn.Module, groups: Sequence[PrunableGroup], sequence: float) -> float:
    """Return the MACs of the whole encoder, as it is now, per sample of ``sequence`` tokens."""
    return priced(unit_prices(model, groups, sequence), [(group.kind, group.units) for group in groups])


def priced(prices: Mapping[UnitKind, float], counts: Iterable[tuple[UnitKind, int]]) -> float:
    """Return what units cost together: counted first, then multiplied, so that equal counts cost equal sums.

    Args:
        prices: of one unit, per kind.
        counts: kind and number of units, of every sublayer.
    """
    totals = dict.fromkeys(prices, 0)
    for kind, count in counts:
        if count:
            totals[kind] += count
    return sum(prices[kind] * total for kind, total in sorted(totals.items(), reverse=True))


def kept_macs(model: nn.Module, groups: Sequence[PrunableGroup], keep: Mapping[str, Tensor], sequence: float) -> float:
    """Return the MACs that are left when only the kept units stay; groups without a mask stay whole.

    Args:
        model: the model the groups describe.
        groups: of this model.
        keep: per group name, shape (units,), ``True`` = keep.
        sequence: tokens per sample.
    """
    counts = [(g.kind, int(keep[g.name].sum()) if g.name in keep else g.units) for g in groups]
    return priced(unit_prices(model, groups, sequence), counts)


def parameters(model: nn.Module) -> int:
    """Return the number of parameters; shared ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def parameter_bytes(model: nn.Module) -> int:
    """Return the bytes that the parameters take in memory; shared ones count once."""
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
