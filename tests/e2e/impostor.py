"""A program of the same user that says at an engine's sockets what it is not.

``python -m tests.e2e.impostor DIRECTORY ATTACK``.

It prints, as JSON, what each message was answered with, and how many frames came to a socket that it said was a worker's.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import zmq

from headrace.spans.span import Rank, Span, SpanAttempt, encode_span
from headrace.types import Message
from headrace.wire.codec import encode_frame, encode_request, from_broker, from_worker
from headrace.wire.engine_status import ProcessStatus, SpanStatus
from headrace.wire.groups import run_count
from headrace.wire.messages import (
    CAPABILITIES,
    Abort,
    Acquire,
    CollectorReport,
    Credit,
    Flush,
    Flushed,
    Goodbye,
    Grant,
    GrantMany,
    Heartbeat,
    Hello,
    Hold,
    PeerRole,
    ProcessReport,
    Query,
    Release,
    Run,
    Silent,
    SpanBatch,
    Vacated,
    Welcome,
)
from headrace.wire.run_request import RunRequest
from tests.waiting import busyness

PATIENCE = 20.0
GOODBYE = Goodbye.__struct_config__.tag
OWN_EPOCH = 0x63


class FalsePeer:
    """What it has: one context, and a socket where it would serve runs."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._context = zmq.Context()
        self.worker = self._context.socket(zmq.ROUTER)
        self.dealers: list[zmq.Socket[bytes]] = []
        self.answers: dict[str, str] = {}

    def bind(self) -> str:
        endpoint = f"ipc://{self.directory / f'w9-{OWN_EPOCH:x}'}"
        self.worker.bind(endpoint)
        return endpoint

    def connect(self, where: str) -> zmq.Socket[bytes]:
        dealer = self._context.socket(zmq.DEALER)
        dealer.connect(f"ipc://{self.directory / where}")
        self.dealers.append(dealer)
        return dealer

    def say(self, name: str, where: str, messages: list[Any], epoch: int = OWN_EPOCH) -> str:
        """Say something on a connection of its own; return why that is ended."""
        dealer = self.connect(where)
        dealer.send(encode_frame(epoch, messages))
        said = ""
        deadline = time.monotonic() + PATIENCE
        while not said and dealer.poll(max(int((deadline - time.monotonic()) * 1000), 0)):
            for message in msgspec.msgpack.decode(dealer.recv()[1:])[1]:
                said = message[1] if message[0] == GOODBYE else said
        dealer.close(0)
        self.answers[name] = said
        return said

    def hello(self, role: PeerRole, name: str = "", endpoint: str = "") -> Hello:
        return Hello(role, 2, os.getpid(), CAPABILITIES, name, endpoint)


def at_the_broker(impostor: FalsePeer) -> None:
    """Be every one of the engine's processes, and say as a client what they say."""
    endpoint = impostor.bind()
    alive = next(path for path in impostor.directory.glob("w1-*"))
    epoch = int(alive.name.partition("-")[2], 16)
    own = ProcessStatus("w9", os.getpid(), "running", 0, epoch=OWN_EPOCH)
    impostor.say("worker", "broker", [impostor.hello("worker", "w9", endpoint), Heartbeat(4096)])
    impostor.say("w1", "broker", [impostor.hello("worker", "w1", f"ipc://{alive}"), Heartbeat(4096)], epoch)
    for place in ("tcp://127.0.0.1:1", f"ipc://{impostor.directory}/../w9-63", "ipc://@w9-63", f"ipc://{alive}"):
        impostor.say(place, "broker", [impostor.hello("worker", "w9", place), Heartbeat(4096)])
    impostor.say("supervisor", "broker", [impostor.hello("supervisor"), ProcessReport([own])])
    impostor.say("collector", "broker", [impostor.hello("collector"), CollectorReport(SpanStatus("/forged"))])
    impostor.say("broker", "broker", [impostor.hello("broker")])
    client = impostor.hello("client")
    for message in (Heartbeat(), ProcessReport([own]), CollectorReport(SpanStatus("/forged")), Flush(1, 1.0)):
        impostor.say(f"client {type(message).__name__}", "broker", [client, message])
    for raw in (b"\x94\x16\xa2w1%s\xcb@\x18\0\0\0\0\0\0" % msgspec.msgpack.encode(epoch), b"\x91\x19"):
        impostor.say(f"client {raw[1]}", "broker", [client, msgspec.Raw(raw)])


def at_a_worker(impostor: FalsePeer) -> None:
    """Be somebody else than a client."""
    alive = next(path.name for path in impostor.directory.glob("w1-*"))
    for role in ("worker", "supervisor", "broker", "collector"):
        impostor.say(role, alive, [impostor.hello(role)])
    impostor.say("client Acquire", alive, [impostor.hello("client"), Acquire("sp_1", 1, "openai", "m")])


def at_the_collector(impostor: FalsePeer) -> None:
    """Rewrite what is on record of the run that the command line names."""
    span_id = sys.argv[3]
    forged = [
        Span(
            span_id=span_id,
            rank=Rank.WORKER,
            provider="forged",
            model="forged",
            trace_id="tr_forged",
            status="error",
            started_at=time.time() + 1000,
            attempts=[SpanAttempt(number, "w9", time.time() + 1000, time.time() + 1001, reason="forged")],
        )
        for number in (1, 2, 99)
    ]
    batch = SpanBatch(1, [encode_span(span) for span in forged])
    own = ProcessStatus("w9", os.getpid(), "running", 0, epoch=OWN_EPOCH)
    for role in ("worker", "broker"):
        impostor.say(role, "collector", [impostor.hello(role, "w9"), batch])
    impostor.say("supervisor", "collector", [impostor.hello("supervisor"), ProcessReport([own])])
    impostor.say("client Flushed", "collector", [impostor.hello("client"), Flushed(1, 1)])
    impostor.say("client ProcessReport", "collector", [impostor.hello("client"), ProcessReport([own])])
    # This one may be said, and is stored; and the same is left with the broker. Then something that may not be said.
    for where in ("collector", "broker"):
        impostor.say(f"client SpanBatch {where}", where, [impostor.hello("client"), batch, Heartbeat()])


def at_others_runs(impostor: FalsePeer) -> None:
    """At a worker, without a lease: touch the run that the command line names, and have one of the same name."""
    span_id, address = sys.argv[3:5]
    alive = next(path.name for path in impostor.directory.glob("w1-*"))
    epoch = int(alive.partition("-")[2], 16)
    dealer = impostor.connect(alive)
    request = RunRequest(provider="openai", model="gpt-4o", messages=[Message("user", "Hi")], stream=True)
    own = Run(span_id, 1, epoch, encode_request(request), 64, 65536, "sk-impostor", base_url=address)
    touches = [Abort(span_id, 1), Credit(span_id, 1, 2**40, 2**40), Query(span_id, 1)]
    dealer.send(encode_frame(OWN_EPOCH, [impostor.hello("client"), *touches]))
    dealer.send(encode_frame(OWN_EPOCH, [own]))
    kinds: list[str] = []
    deadline = time.monotonic() + PATIENCE
    while "Finished" not in kinds and dealer.poll(max(int((deadline - time.monotonic()) * 1000), 0)):
        kinds += [type(message).__name__ for message in from_worker.decode(dealer.recv())[1]]
    broker = impostor.connect("broker")
    broker.send(encode_frame(OWN_EPOCH, [impostor.hello("client"), Release(span_id, 1), Hold(span_id, 9, epoch)]))
    broker.send(encode_frame(OWN_EPOCH, [Acquire(span_id, 2, "openai", "m")]))
    while "Refuse" not in kinds and broker.poll(max(int((deadline - time.monotonic()) * 1000), 0)):
        kinds += [type(message).__name__ for message in from_broker.decode(broker.recv())[1]]
    impostor.answers["heard"] = " ".join(kinds)


def at_the_leases(impostor: FalsePeer) -> None:
    """Take all leases that there are, on many connections, and use none of them: as many as the command line says at least."""
    poller = zmq.Poller()
    taken = 0
    began = last = time.monotonic()
    for number in range(4):
        dealer = impostor.connect("broker")
        questions = [Acquire(f"sp_{os.getpid()}_{number}_{n}", 1, "openai", "m") for n in range(1500)]
        dealer.send(encode_frame(number + 1, [impostor.hello("client"), *questions]))
        poller.register(dealer, zmq.POLLIN)
    deadline = time.monotonic() + PATIENCE * busyness()
    while (ready := poller.poll(500)) or (taken < int(sys.argv[3]) and time.monotonic() < deadline):
        for dealer, _ in ready:
            said = from_broker.decode(dealer.recv())[1]
            taken += sum(run_count(message) for message in said if isinstance(message, Grant | GrantMany))
        last = time.monotonic() if ready else last
    impostor.answers["taken"] = str(taken)
    impostor.answers["seconds"] = str(last - began)


def in_the_brokers_place(impostor: FalsePeer) -> None:
    """End the broker and serve where it did, until there is another: have all that ask ended as hung, and vacated."""
    alive = next(path.name for path in impostor.directory.glob("w1-*"))
    name, _, epoch = alive.partition("-")
    lies = [Welcome(2, os.getpid(), CAPABILITIES), Silent(name, int(epoch, 16), 60.0), Vacated()]
    os.kill(int(sys.argv[3]), signal.SIGKILL)
    impostor.worker.bind(f"ipc://{impostor.directory / 'broker'}")
    deadline = time.monotonic() + 1.0
    frames = 0
    while time.monotonic() < deadline:
        if impostor.worker.poll(10):
            peer, _ = impostor.worker.recv_multipart()
            frames += 1
            impostor.worker.send_multipart([peer, encode_frame(OWN_EPOCH, lies)])
    impostor.answers["frames"] = str(frames)


ATTACKS: dict[str, Callable[[FalsePeer], None]] = {
    "broker": at_the_broker,
    "worker": at_a_worker,
    "collector": at_the_collector,
    "leases": at_the_leases,
    "runs": at_others_runs,
    "place": in_the_brokers_place,
}


def main() -> None:
    impostor = FalsePeer(Path(sys.argv[1]))
    ATTACKS[sys.argv[2]](impostor)
    print(json.dumps({"answers": impostor.answers}), flush=True)
    sys.stdin.read()  # it stays there as long as it is wanted
    frames = 0
    while impostor.worker.poll(0):
        impostor.worker.recv_multipart()
        frames += 1
    print(json.dumps({"frames": frames}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
