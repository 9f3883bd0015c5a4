"""A trace of a network with each of its parts folded into one node."""

import jax

from fnnet.diagnostics.trace import Node, Trace


def fold(trace, depth=1):
    """Folds the nodes of each part of a network, down to `depth` (1: the top-level parts), into one node that holds its parameters.

    A part that passes several values to others is left as it is.
    """
    if isinstance(depth, bool) or not isinstance(depth, int) or depth < 1:
        raise ValueError(f"depth must be a whole number ≥ 1; got {depth!r}")
    nodes, users = trace.nodes, {i: [] for i in range(len(trace.nodes))}
    for v, node in enumerate(nodes):
        for u in node.inputs:
            users[u].append(v)
    groups = {}
    for i, node in enumerate(nodes):
        if node.path:
            groups.setdefault(node.path[:depth], []).append(i)
    into = {}                                       # node -> the last node of its part, which represents the part
    for members in groups.values():
        leaving = [i for i in members if not users[i] or any(v not in members for v in users[i])]
        if leaving == members[-1:]:
            into |= dict.fromkeys(members, leaving[0])
    held = {}                                       # part -> parameters that no other part uses
    for i, node in enumerate(nodes):
        owners = {into.get(v) for v in users[i]}
        if node.kind == "input" and node.argument == 0 and len(owners) == 1 and None not in owners:
            held.setdefault(owners.pop(), []).append(i)
    for last, inputs in list(held.items()):         # a part must keep at least one input: what it is applied to
        fed = {u for i, end in into.items() if end == last for u in nodes[i].inputs} - {i for i, end in into.items() if end == last}
        if not fed - set(inputs):
            del held[last]
    gone = {i for inputs in held.values() for i in inputs} | {i for i, last in into.items() if i != last}
    place = {i: k for k, i in enumerate(i for i in range(len(nodes)) if i not in gone)}
    return Trace(tuple(_folded(nodes, i, [j for j, last in into.items() if last == i], held.get(i, []), gone, place, trace.layers)
                       for i in place), trace.loss, trace.layers)


def _folded(nodes, i, members, held, gone, place, layers):
    """The node that represents a part; any other node with its inputs renumbered."""
    node = nodes[i]
    if not members or (len(members) == 1 and " " in node.kind):         # outside every part, or already folded
        return node._replace(inputs=tuple(place[u] for u in node.inputs))
    messages, local = {}, {}
    for v in members:
        for u, message, slope in zip(nodes[v].inputs, nodes[v].messages, nodes[v].local):
            if u not in gone:
                messages[u] = message if u not in messages else jax.tree.map(lambda a, b: a + b, messages[u], message)
                local[u] = slope if len(members) == 1 else None
    inputs = tuple(sorted(messages))
    path = _common([nodes[v].path for v in members])
    word = f"{'.'.join(map(str, path))} {layers.get(path, '')}"
    formula = node.formula if len(members) == 1 else ""
    return Node(node.name, f"{word}({', '.join(nodes[u].name for u in inputs)})", word, tuple(place[u] for u in inputs), node.value,
                node.gradient, tuple(local[u] for u in inputs), tuple(messages[u] for u in inputs), formula, path, None,
                tuple(nodes[u] for u in held))


def _common(paths):
    least = paths[0]
    for path in paths:
        least = tuple(a for k, a in enumerate(least) if path[:k + 1] == least[:k + 1])
    return least
