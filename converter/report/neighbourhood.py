"""The ops around a batch-norm that stays, as boxes in layers and the edges between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import onnx_ir as ir

# How many ops before and after are shown; more if the op in the way is farther off.
HOPS, MOST_HOPS = 2, 6
# How many ops are drawn side by side; the others are only counted.
BREADTH = 4


Item = ir.Node | ir.Value


@dataclass(frozen=True)
class Box:
    """One op.

    `layer` is 0 for the batch-norm, negative before and positive behind it, and larger than that of
    each op that it reads. `role` is "site", "in the way", "input" or "output" of the graph, "more",
    or "" for any other op.
    """

    op: str
    name: str
    layer: int
    role: str = ""


def neighbourhood(
    nodes: Sequence[ir.Node],
    stops: Sequence[ir.Node],
    name: Callable[[ir.Node], str],
    *,
    at_input: bool = False,
    at_output: bool = False,
) -> dict[str, Any]:
    """The surroundings of one batch-norm.

    Args:
        nodes: the nodes that make up the batch-norm.
        stops: the ops in the way.
        name: gives an op's name in the drawing.
        at_input, at_output: what stands in the way is an input, an output of the graph.

    Returns:
        `boxes`, and `edges` as pairs of indices into them, from the op that computes a value
        to the one that reads it.
    """
    layers: dict[Item, int] = dict.fromkeys(nodes, 0)
    in_the_way = set[Item](stops)
    for way, ends in ((_before, at_input), (_after, at_output)):
        in_the_way |= _spread(layers, nodes, in_the_way, way, ends)
    for stop in stops:
        sources = [source for source in _before(stop) if source in layers]
        if stop not in layers and sources and stop.graph is not None:
            layers[stop] = max(layers[source] for source in sources) + 1
    return _draw(_layered(layers, set(nodes)), set(nodes), in_the_way, name)


def _before(node: Item) -> Iterator[Item]:
    """The nodes that compute what `node` reads, and the inputs of the graph that it reads."""
    for value in node.inputs if isinstance(node, ir.Node) else ():
        if value is not None and not value.is_initializer():
            yield value.producer() or value


def _after(node: Item) -> Iterator[Item]:
    """The nodes that read what `node` computes, and the outputs of the graph that it computes."""
    for value in node.outputs if isinstance(node, ir.Node) else ():
        yield from (use.node for use in value.uses())
        if value.is_graph_output():
            yield value


def _spread(
    layers: dict[Item, int],
    nodes: Sequence[ir.Node],
    stops: set[Item],
    way: Callable[[Item], Iterator[Item]],
    ends: bool,
) -> set[Item]:
    """Walk from the batch-norm in one direction; beyond HOPS only to reach what is in the way.

    Returns what is in the way: with `ends`, the first inputs or outputs of the graph on this walk.
    """
    sign = -1 if way is _before else 1
    found: dict[Item, int] = {}
    edge: list[Item] = list(nodes)
    wanted, met, reached = HOPS, set[Item](), False
    for hop in range(1, MOST_HOPS + 1):
        known = {*found, *nodes}
        edge = list(dict.fromkeys(i for item in edge for i in way(item) if i not in known))
        found |= dict.fromkeys(edge, hop)
        if not reached:
            met = {i for i in edge if i in stops or (ends and isinstance(i, ir.Value))}
            # An op that reads the same value is drawn beside the path.
            beside = way is _before and any(o in stops for i in edge for o in _after(i))
            reached = beside or bool(met)
            wanted = max(wanted, hop) if reached else wanted
        if reached and hop >= wanted:
            break
    layers |= {item: sign * hop for item, hop in found.items() if hop <= wanted}
    return met


def _layered(items: Iterable[Item], site: set[ir.Node]) -> dict[Item, int]:
    """Layers in which every op is below everything that it reads, the batch-norm in layer 0."""
    shown = set(items)
    depths: dict[Item, int] = {}

    def sources(item: Item) -> list[Item]:
        producer = item.producer() if isinstance(item, ir.Value) else None
        before = [producer] if producer is not None else list(_before(item))
        return [source for source in before if source in shown]

    def depth(item: Item) -> int:
        if item not in depths:
            depths[item] = 1 + max((depth(source) for source in sources(item)), default=-1)
        return depths[item]

    for item in items:
        depth(item)
    readers: dict[Item, list[int]] = {}
    for item in depths:
        for source in sources(item):
            readers.setdefault(source, []).append(depths[item])
    for item, below in readers.items():
        if not sources(item):  # as near to its reader as possible
            depths[item] = min(below) - 1
    zero = max(depths[node] for node in site)
    return {item: 0 if item in site else depths[item] - zero for item in items}


def _draw(
    layers: dict[Item, int],
    site: set[ir.Node],
    stops: set[Item],
    name: Callable[[ir.Node], str],
) -> dict[str, Any]:
    boxes: list[Box] = []
    places: dict[Item, int] = {}
    for layer in sorted(set(layers.values())):
        # The ops in the way are always shown.
        row = [node for node, at in layers.items() if at == layer]
        row.sort(key=lambda node: node not in stops and node not in site)
        for node in row[:BREADTH]:
            if node in site and any(other in places for other in site):
                places[node] = next(places[other] for other in site if other in places)
                continue
            places[node] = len(boxes)
            boxes.append(_box(node, layer, site, stops, name))
        if len(row) > BREADTH:
            boxes.append(Box("", f"and {len(row) - BREADTH} more", layer, "more"))
    edges: dict[tuple[int, int], None] = dict.fromkeys(
        (places[source], places[node])
        for node in places
        for source in _before(node)
        if source in places and places[source] != places[node]
    )
    for item in places:
        producer = item.producer() if isinstance(item, ir.Value) else None
        if producer is not None and producer in places:
            edges[places[producer], places[item]] = None
    pairs = sorted(edges)
    return {"boxes": [asdict(box) for box in boxes], "edges": [list(pair) for pair in pairs]}


def _box(
    node: Item,
    layer: int,
    site: set[ir.Node],
    stops: set[Item],
    name: Callable[[ir.Node], str],
) -> Box:
    if isinstance(node, ir.Value):
        kind = "output" if node.producer() is not None else "input"
        return Box(kind, node.name or "", layer, "in the way" if node in stops else kind)
    role = "site" if node in site else "in the way" if node in stops else ""
    return Box(node.op_type, name(node), layer, role)
