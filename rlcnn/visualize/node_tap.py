"""Access to the output of any node of an encoder while its network computes something else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import fx, nn

from envs.errors import UserError, nearest
from rlcnn.encoders.base import Encoder
from rlcnn.encoders.preprocessing import Preprocessing


@contextmanager
def tapped(encoder: Encoder, node: str) -> Iterator[nn.Module]:
    """Inserts an identity module after a node of ``encoder``, and yields it.

    Inside the block every call of the encoder passes the node's output through that module, to
    which hooks can be attached, also where the node is an operation and no module. Parameters are
    the encoder's own. The encoder must stay in evaluation mode.

    Args:
        encoder: a network with ``encoder.nodes()``.
        node: one of these names, or a module, which means its last node.

    Raises:
        UserError: there is no such node.
    """
    from torchvision.models.feature_extraction import NodePathTracer

    root: Any = encoder.get_submodule(encoder.nodes_of)
    # The network of a library was traced when it was cut.
    graph = getattr(root, "graph", None)
    if graph is None:
        tracer = NodePathTracer(leaf_modules=[Preprocessing])
        graph = tracer.trace(root)
        names = {name: place for place, name in tracer.node_to_qualname.items()}
    else:
        names = _names_of_cut(encoder, graph)
    within = [name for name in names if name == node or name.startswith(f"{node}.")]
    if not within:
        parents = {name.rsplit(".", up)[0] for name in names for up in range(name.count(".") + 1)}
        raise UserError(
            f'encoder "{encoder.name}" has no node "{node}".{nearest(node, sorted(parents))}'
        )
    tap = nn.Identity()
    own = vars(root).get("forward")
    root.forward = _with_module_after(root, graph, names[within[-1]], tap).forward
    try:
        yield tap
    finally:
        del root.forward
        if own is not None:
            root.forward = own


def _names_of_cut(encoder: Encoder, graph: fx.Graph) -> dict[str, fx.Node]:
    places = [place for place in graph.nodes if place.op != "output"]
    names = encoder.nodes()
    if len(names) == len(places):
        return dict(zip(names, places, strict=True))
    # Cutting removed operations: only modules keep their names.
    return {str(place.target): place for place in places if place.op == "call_module"}


def _with_module_after(
    root: nn.Module, graph: fx.Graph, node: fx.Node, module: nn.Module
) -> fx.GraphModule:
    """The network of ``graph`` with ``module`` after ``node``, sharing all parameters."""
    copies: dict[fx.Node, fx.Node] = {}
    copy = fx.Graph()
    copy.output(copy.graph_copy(graph, copies))
    network = fx.GraphModule(root, copy)
    network.add_submodule("_tap", module)
    # GraphModule copied the graph once more, in the same order.
    place = [*copy.nodes].index(copies[node])
    before = [*network.graph.nodes][place]
    with network.graph.inserting_after(before):
        tap = network.graph.call_module("_tap", (before,))
    with network.graph.inserting_after(tap):
        # The next layer may work in place, which would change what hooks of the tap stored.
        clone = network.graph.call_method("clone", (tap,))
    before.replace_all_uses_with(clone, delete_user_cb=lambda user: user is not tap)
    network.recompile()
    return network
