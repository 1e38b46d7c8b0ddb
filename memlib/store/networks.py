"""What a read of a sharded store costs on a network, worked out."""

from typing import Final

from memlib import _checks as checks
from memlib.store.ranks import HEAD

INTEGER, FLOAT, DOUBLE = 8, 4, 8  # bytes

# Bytes a second in one direction, and seconds that a message takes however short it is.
#   Rates: IEEE 802.3ae and 802.3ba; InfiniBand NDR of four lanes; NVLink 4 of an H100, which has
#   900 GB/s both ways. Messages: over InfiniBand and NVLink what NVIDIA's NCCL reckons with for a
#   step of a ring (its src/graph/tuning.cc, hwLat, protocol LL); over Ethernet, through the
#   kernel's TCP, half of a round trip of 100 µs, which is assumed: `ping` tells yours.
NETWORKS: Final[dict[str, tuple[float, float]]] = {
    "Ethernet 10 Gb/s": (10e9 / 8, 50e-6),
    "Ethernet 100 Gb/s": (100e9 / 8, 50e-6),
    "InfiniBand NDR 400 Gb/s": (400e9 / 8, 2.7e-6),
    "NVLink 4": (450e9, 0.6e-6),
}


def read_cost(
    pairs: int,
    width: int,
    value_width: int,
    ranks: int,
    *,
    queries: int = 1,
    k: int | None = None,
    network: str | tuple[float, float] = "Ethernet 10 Gb/s",
) -> dict[str, float]:
    r"""Work out what a rank holds and sends: :math:`t = m \lambda + b / \beta`.

    :math:`m` messages take :math:`\lambda` seconds each, :math:`b` bytes go at :math:`\beta` bytes
    a second. Numbers are float32, ids int64, the store one of one row, the measure no distance. The
    ranks stand in a ring, in which each gives on what it was given: R - 1 messages to tell all
    ranks, 2 (R - 1) to add up what they have. What the look at the keys takes is not in it.

    Args:
        pairs: in the whole store.
        width: M of a key.
        value_width: V of a value.
        ranks: number of ranks R.
        queries: number of queries, the same on every rank.
        k: of `memlib.ShardedStore.read`; all pairs when None.
        network: bytes a second and seconds a message, or the name of such a pair in
            `memlib.store.NETWORKS`.

    Returns:
        What a rank has, "bytes held" (keys, values and ids), and of a read without gradients the
        "messages" it sends, their "bytes sent", and the "seconds" that takes.

    Raises:
        TypeError: a number is no integer, or what the network takes is no pair of numbers.
        ValueError: a number too small, or a name that is not in `NETWORKS`.

    Source:
        Chan et al. 2007, section 3 (Collective communication: theory, practice, and experience).

    Example:
        >>> from memlib.store import read_cost
        >>> read_cost(10**9, 64, 64, ranks=2)["bytes held"] / 1e9  # GB
        260.0
    """
    sizes = {"pairs": pairs, "width": width, "value_width": value_width, "ranks": ranks}
    for name, size in (sizes | {"queries": queries}).items():
        checks.integer(name, size, 1)
    told = INTEGER * (HEAD + 3)  # the first round: who agrees, what comes next, what a verb adds
    if k is None:
        gathered = [told, queries * (FLOAT * value_width + DOUBLE)]  # reads and log-sum-exps
        summed = []
    else:
        checks.integer("k", k, 1)
        gathered = [told, queries * k * (FLOAT + INTEGER)]  # scores and ids
        summed = [queries * value_width * FLOAT]
    if isinstance(network, str):
        checks.choice("network", network, tuple(NETWORKS))
        network = NETWORKS[network]
    elif not isinstance(network, tuple | list) or len(network) != 2:
        raise TypeError(f"network must be a name or (bytes a second, seconds); got {network!r}")
    rate = checks.number("network[0]", network[0], 1)
    others, latency = ranks - 1, checks.number("network[1]", network[1], 0)
    messages = others * (len(gathered) + 2 * len(summed))
    sent = others * (sum(gathered) + 2 * sum(summed) / ranks)
    held = -(-pairs // ranks) * (FLOAT * (width + value_width) + INTEGER)
    cost = {"bytes held": held, "messages": messages, "bytes sent": sent}
    return cost | {"seconds": messages * latency + sent / rate}
