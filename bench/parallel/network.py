"""Ranks in network namespaces of one machine, behind links whose bandwidth the kernel's token buckets shape.

    rank 0 --\\                          /-- rank 2
              bridge of node 0 == core == bridge of node 1           == : `between` bytes/s each way, shared by a node
    rank 1 --/                          \\-- rank 3                   -- : `within` bytes/s each way

A packet between nodes passes a `within` link, two `between` links and another `within` link. Latency is not shaped: it
is what the kernel takes, some tens of microseconds.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType

PREFIX = "moec"
SUBNET = "10.77.0"
INTERFACE = "eth0"
PACKET, FRAME = 2**16, 9000
"""Bytes of the largest packet that the kernel passes on, and of one on the wire (as data centres have them). Large ones
keep the kernel's part of the processor small; a token bucket passes a packet whole only if it holds that much."""
QUEUE = 2**23
"""Bytes that may wait before a link: more than the windows of all connections together, so that nothing is lost."""
TCP = (
    "net.ipv4.tcp_congestion_control=reno",
    f"net.ipv4.tcp_rmem=4096 65536 {2**18}",
    f"net.ipv4.tcp_wmem=4096 65536 {2**18}",
)
"""Connections with small windows share a link evenly, and what is small waits little behind what is large."""
GUARD = """read -r _; for space in "$@"; do ip netns pids "$space" | xargs -r kill -9; ip netns del "$space"; done"""


@dataclass(frozen=True)
class Shape:
    """`nodes` x `ranks` ranks; bytes a second of the link of a node, and of that of a rank."""

    nodes: int = 2
    ranks: int = 2
    between: float = 1e9 / 8
    within: float = 10e9 / 8


def unavailable() -> str | None:
    """Why there can be no such network here, or None."""
    missing = [name for name in ("ip", "tc") if shutil.which(name) is None]
    if missing:
        return f"{' and '.join(missing)} of iproute2 not found"
    if os.geteuid():
        return "network namespaces need root"
    trial = f"{PREFIX}-{os.getpid()}-trial"
    try:
        _run("ip", "netns", "add", trial)
        try:
            link = ("ip", "-n", trial, "link", "add", "name", "a", "type", "veth", "peer", "name", "b")
            _run(*link)
            _run("tc", "-n", trial, "qdisc", "add", "dev", "a", "root", *_bucket(1e9))
        finally:
            _run("ip", "netns", "del", trial)
    except NetworkError as error:
        return str(error)
    return None


class NetworkError(Exception):
    """The kernel refused a namespace, a link or a token bucket."""


class Network:
    """A context in which the namespaces exist.

    A process that waits for this one removes them, with every process inside, when the context is left and also when
    this process is killed.
    """

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        stem = f"{PREFIX}-{os.getpid()}"
        self._core = f"{stem}-core"
        self._nodes = [f"{stem}-node{node}" for node in range(shape.nodes)]
        self.spaces = [f"{stem}-rank{rank}" for rank in range(shape.nodes * shape.ranks)]
        self._guard: subprocess.Popen[bytes] | None = None

    def address(self, rank: int) -> str:
        return f"{SUBNET}.{rank + 1}"

    def environment(self, rank: int) -> Mapping[str, str]:
        """What torch.distributed reads there: ranks, where rank 0's store is, and Gloo's interface."""
        return {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank % self.shape.ranks),
            "WORLD_SIZE": str(len(self.spaces)),
            "MASTER_ADDR": self.address(0),
            "MASTER_PORT": "29400",
            "GLOO_SOCKET_IFNAME": INTERFACE,
        }

    def start(self, rank: int, command: Sequence[str], more: Mapping[str, str] = os.environ) -> subprocess.Popen[bytes]:
        """Start `command` as a rank, in its namespace; `more` is what its environment holds beside `environment`."""
        inside = ["ip", "netns", "exec", self.spaces[rank], *command]
        return subprocess.Popen(inside, env={**more, **self.environment(rank)})

    def reshape(self, between: float, within: float) -> None:
        """Give the links other bandwidths, in bytes a second."""
        self.shape = replace(self.shape, between=between, within=within)
        for node, name, rate in self._queues():
            _run("tc", "-n", node, "qdisc", "change", "dev", name, "root", *_bucket(rate))

    def _queues(self) -> Iterator[tuple[str, str, float]]:
        """Both ends of every link: namespace, interface, bytes a second."""
        shape = self.shape
        for number, node in enumerate(self._nodes):
            yield node, "uplink", shape.between
            yield self._core, f"node{number}", shape.between
        for rank, space in enumerate(self.spaces):
            yield space, INTERFACE, shape.within
            yield self._nodes[rank // shape.ranks], f"rank{rank}", shape.within

    def __enter__(self) -> Network:
        every = [*self.spaces, *self._nodes, self._core]
        # Its own session: an interrupt at the keyboard must not end it before its work.
        self._guard = subprocess.Popen(
            ["sh", "-c", GUARD, "guard", *every],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self._build(every)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _remove(self) -> None:
        if self._guard is not None:
            self._guard.communicate()  # closes its input, which it waits for
            self._guard = None

    def _build(self, every: Sequence[str]) -> None:
        for space in every:
            _run("ip", "netns", "add", space)
            _run("ip", "-n", space, "link", "set", "dev", "lo", "up")
        for space in (*self._nodes, self._core):
            _run("ip", "-n", space, "link", "add", "name", "bridge", "type", "bridge")
            _run("ip", "-n", space, "link", "set", "dev", "bridge", "up")
        for number, node in enumerate(self._nodes):
            _link((node, "uplink"), (self._core, f"node{number}"), self.shape.between)
            _bridged(node, "uplink")
            _bridged(self._core, f"node{number}")
        for rank, space in enumerate(self.spaces):
            node = self._nodes[rank // self.shape.ranks]
            _link((space, INTERFACE), (node, f"rank{rank}"), self.shape.within)
            _bridged(node, f"rank{rank}")
            _run("ip", "-n", space, "address", "add", f"{self.address(rank)}/24", "dev", INTERFACE)
            _run("ip", "netns", "exec", space, "sysctl", "-q", *TCP)


def _bucket(rate: float) -> tuple[str, ...]:
    return ("tbf", "rate", f"{round(8 * rate)}bit", "burst", str(PACKET + FRAME), "limit", str(QUEUE))


def _link(one: tuple[str, str], other: tuple[str, str], rate: float) -> None:
    """A link between two interfaces (namespace, name), `rate` bytes a second each way."""
    (a, a_name), (b, b_name) = one, other
    _run("ip", "-n", a, "link", "add", "name", a_name, "type", "veth", "peer", "name", b_name, "netns", b)
    for space, name in (one, other):
        packet = ("mtu", str(FRAME), "gso_max_size", str(PACKET), "gro_max_size", str(PACKET))
        _run("ip", "-n", space, "link", "set", "dev", name, *packet, "up")
        _run("tc", "-n", space, "qdisc", "add", "dev", name, "root", *_bucket(rate))
        # A connection's packets go through one processor: otherwise they overtake each other, and TCP sends them again.
        everyone = f"{(1 << (os.cpu_count() or 1)) - 1:x}"
        _run("ip", "netns", "exec", space, "sh", "-c", f"echo {everyone} > /sys/class/net/{name}/queues/rx-0/rps_cpus")


def _bridged(space: str, name: str) -> None:
    _run("ip", "-n", space, "link", "set", "dev", name, "master", "bridge")


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NetworkError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
