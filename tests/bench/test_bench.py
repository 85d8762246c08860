"""The benchmark's own parts, with tiny numbers: they count rightly, notice what is wrong, and stop what they start."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from app.domain.command import Role
from tests.bench import before, machine, report, runner, servers
from tests.bench.bench import Bench, Scenario, Turn
from tests.bench.figures import OURS, Bar, Column, Ledger, Standing
from tests.bench.load import crowd as crowds
from tests.bench.load.callers import Answer, Call, Caller, call
from tests.bench.load.crowd import CrowdError, crowd
from tests.bench.load.history import build
from tests.bench.load.publishers import IntakePublisher, SettingsPublisher, SocketPublisher
from tests.bench.load.requests import Intakes, get
from tests.bench.peers import preparing
from tests.bench.peers.catalogue import FANOUT, FLOOR, NO_DATABASE, Peer, Runtime, Wire
from tests.bench.scale import QUICK
from tests.bench.servers import Server, token
from tests.support.ports import free_port

LIVE = "/v1/performers/room-0/queue/live"
CORE = machine.cores()[0]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def service(cache: Path) -> Iterator[Server]:
    with servers.ours(cache / "data", CORE) as server:
        yield server


@pytest.fixture(scope="module")
def peer(cache: Path) -> Iterator[Server]:
    """A server that broadcasts what it is told, whatever that is."""
    (broadcasting,) = (peer for peer in FANOUT if peer.name == "websockets.broadcast")
    with preparing.running(preparing.prepare(broadcasting, cache), cache / "data", CORE) as server:
        yield server


@pytest.fixture(params=["compiled", "python"])
def viewers(request: pytest.FixtureRequest, cache: Path) -> list[str]:
    if request.param == "python":
        return [sys.executable, str(crowds.HERE / "viewers.py")]
    if crowds.compiler() is None:
        pytest.skip("no C compiler")
    return crowds.viewer_command(cache / "bin")


@pytest.fixture
def bench(cache: Path) -> Bench:
    return Bench(scale=QUICK, server_core=CORE, load_core=CORE, cache=cache, viewers=[], peers=frozenset())


def test_viewers_count_what_everyone_got(peer: Server, viewers: list[str]) -> None:
    with crowd(viewers, CORE, flavour="plain") as watching:
        watching.connect(peer.port, "/live", 20)
        publisher = SocketPublisher(peer.port, Wire.WEBSOCKET, 250)
        publisher.publish(1)
        watching.wait(20)
        publisher.publish(8)
        watching.wait(9 * 20)
        publisher.close()
        counted = watching.report()
    assert counted.is_complete(viewers=20, events=9)
    assert (counted.deliveries, counted.newest) == (180, 9)
    assert counted.bytes == pytest.approx(180 * 254, rel=0.2)


def test_viewers_read_frames_of_every_length(peer: Server, viewers: list[str]) -> None:
    with crowd(viewers, CORE, flavour="plain") as watching:
        watching.connect(peer.port, "/live", 2)
        numbers = iter(range(1, 100))
        for size in (60, 125, 126, 5_000, 65_000):
            publisher = SocketPublisher(peer.port, Wire.WEBSOCKET, size, numbers)
            publisher.publish(2)
            publisher.close()
        watching.wait(2 * 10)
        assert watching.report().is_complete(viewers=2, events=10)


def test_viewers_notice_what_is_missing_and_what_comes_twice(peer: Server, viewers: list[str]) -> None:
    with crowd(viewers, CORE, flavour="plain") as watching:
        watching.connect(peer.port, "/live", 3)
        publisher = SocketPublisher(peer.port, Wire.WEBSOCKET, 250, iter((1, 2, 4, 4, 5)))
        publisher.publish(5)
        watching.wait(4 * 3)
        publisher.close()
        counted = watching.report()
    assert (counted.gaps, counted.repeats) == (3, 3)
    assert not counted.is_complete(viewers=3, events=4)


def test_viewers_that_cannot_get_in_are_an_error(peer: Server, viewers: list[str]) -> None:
    with crowd(viewers, CORE, flavour="plain") as watching, pytest.raises(CrowdError, match="2 viewers wanted"):
        watching.connect(free_port(), "/live", 2)


def test_a_wait_for_what_never_comes_ends(peer: Server, viewers: list[str]) -> None:
    with crowd(viewers, CORE, flavour="plain") as watching:
        watching.connect(peer.port, "/live", 1)
        with pytest.raises(CrowdError, match="0 came"):
            watching.wait(1, seconds=0.05)


def test_viewers_of_the_service_get_every_intake(service: Server, viewers: list[str]) -> None:
    with crowd(viewers, CORE) as watching:
        watching.connect(service.port, "/v1/performers/seen-%d/queue/live", 6, per_room=3)
        publisher = IntakePublisher(service, rooms=2, prefix="seen")
        publisher.publish(2)
        publisher.publish(8)
        watching.wait(10 * 3)
        publisher.close()
        assert watching.report().is_complete(viewers=6, events=5)


def test_viewers_that_stalled_are_current_after_they_wake(service: Server, viewers: list[str]) -> None:
    with crowd(viewers, CORE) as watching:
        watching.connect(service.port, LIVE, 2)
        watching.pause()
        publisher = SettingsPublisher(service, "room-0")
        publisher.publish(5)
        watching.resume()
        watching.wait(5 * 2)
        assert watching.report().is_complete(viewers=2, events=5)


def test_the_floor_sends_everything_to_everyone(cache: Path, viewers: list[str]) -> None:
    try:
        prepared = preparing.prepare(FLOOR, cache)
    except preparing.Absent as reason:
        pytest.skip(str(reason))
    with (
        preparing.running(prepared, cache / "data", CORE) as server,
        crowd(viewers, CORE, flavour="plain") as watching,
    ):
        watching.connect(server.port, "/live", 10)
        publisher = SocketPublisher(server.port, Wire.WEBSOCKET, 250)
        publisher.publish(8)
        watching.wait(80)
        publisher.close()
        assert watching.report().is_complete(viewers=10, events=8)


def test_callers_count_every_answer(cache: Path) -> None:
    with preparing.running(preparing.prepare(NO_DATABASE, cache), cache / "data", CORE) as server:
        intakes = Intakes(5)
        tally = call(server.port, [intakes.caller() for _ in range(4)], calls=40)
        assert (dict(tally.statuses), tally.failures) == ({201: 40}, 0)
        assert len(tally.latencies["intake"]) == 40

        missing = call(server.port, [(Call("none", get("/none")) for _ in range(3))])  # type: ignore[list-item]
        assert (dict(missing.statuses), missing.failures) == ({404: 3}, 3)

        paced = call(server.port, [intakes.caller() for _ in range(2)], seconds=0.2, rate=100)
        assert paced.calls == pytest.approx(20, abs=1)


def test_a_caller_may_use_what_an_earlier_answer_said(service: Server) -> None:
    seen: list[str] = []

    def caller() -> Caller:
        answer: Answer = yield Intakes(1, prefix="told").next()
        item = json.loads(answer.body)["itemId"]
        answer = yield Call("item", get(f"/v1/queue/items/{item}", bearer=token(Role.ADMIN, "bench")))
        seen.append(json.loads(answer.body)["performerId"])

    tally = call(service.port, [caller()])
    assert seen == ["told-0"]
    assert dict(tally.statuses) == {201: 1, 200: 1}


def test_a_history_built_in_bulk_is_one_the_service_goes_on_with(cache: Path) -> None:
    history = build(cache / "history", events=40, rooms=3, core=CORE)
    assert history.events >= 40
    admin = token(Role.ADMIN, "bench")
    answers: list[dict[str, object]] = []

    def caller() -> Caller:
        for number in range(3):
            answer: Answer = yield Call("queue", get(f"/v1/performers/{history.room(number)}/queue", bearer=admin))
            answers.append(json.loads(answer.body))
            yield Intakes(1).next(history.room(number))
            path = f"/v1/performers/{history.room(number)}/queue/history?limit=1"
            answer = yield Call("history", get(path, bearer=admin))
            answers.append(json.loads(answer.body))

    server = servers.start_ours(history.folder, CORE)
    try:
        tally = call(server.port, [caller()])
    finally:
        server.stop()
    assert tally.failures == 0
    queues, pages = answers[::2], answers[1::2]
    assert [len(queue["items"]) for queue in queues] == [1, 1, 1]  # type: ignore[arg-type]
    assert [page["total"] for page in pages] == [history.events // 4 // 3] * 3
    assert history.ended_items() == history.events // 4


def test_a_history_of_long_ago_is_one_that_retention_removes(cache: Path) -> None:
    history = build(cache / "long-ago", events=40, rooms=3, core=CORE, days_ago=2)
    assert history.ended_items() == history.events // 4
    server = servers.start_ours(history.folder, CORE, {"RETENTION_DAYS": "1"})
    try:
        deadline = time.monotonic() + 20
        while history.ended_items() and time.monotonic() < deadline:
            time.sleep(0.1)
    finally:
        server.stop()
    assert history.ended_items() == 0


def test_a_server_that_cannot_start_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such luck')"]
    with pytest.raises(servers.DidNotStart, match="no such luck"):
        servers.start(command, core=CORE, port=free_port(), folder=tmp_path)


def test_cpu_and_memory_are_those_of_the_process_and_its_children(service: Server) -> None:
    used = service.cpu()
    call(service.port, [Intakes(5, prefix="costly").caller() for _ in range(4)], calls=100)
    assert service.cpu() > used
    assert service.process.pid in service.pids
    assert service.memory() > 20 * 2**20


def test_cpu_of_threads_that_have_ended_counts() -> None:
    program = """if True:
        import threading, time
        thread = threading.Thread(target=lambda: sum(range(10**6)))
        thread.start()
        thread.join()
        print(time.process_time(), flush=True)
        input()
    """
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        own = float(process.stdout.readline())
        assert own <= machine.cpu_seconds([process.pid]) < own + 1
        process.communicate(b"\n")


def test_a_peer_that_cannot_be_had_is_absent_with_a_reason(tmp_path: Path) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho 'no such package' >&2; exit 1\n")
    python.chmod(0o755)
    impossible = Peer(name="none", runtime=Runtime.VENV, source="none.py", packages=("none",), proof="none")
    with pytest.raises(preparing.Absent, match="none could not be installed: no such package"):
        preparing.prepare(impossible, tmp_path)


def test_ratios_are_those_of_the_same_round() -> None:
    ledger = Ledger()
    case = ledger.case("s", "s", "A case", (Column(measure="cpu", title="CPU"),), ("cpu", "floor"))
    for number, (floor, ours) in enumerate([(1.0, 2.0), (10.0, 11.0), (4.0, 6.0)]):
        case.note(number, "floor", cpu=floor)
        case.note(number, OURS, cpu=ours)
    case.note(3, OURS, cpu=100.0)
    bar = Bar(case="s", text="CPU × floor", measure="cpu", against="floor", at_most=1.5)
    verdict = ledger.judge("s", bar)
    assert verdict.found is not None
    assert (verdict.found.middle, verdict.found.low, verdict.found.high) == (1.5, 1.1, 2.0)
    assert verdict.standing is Standing.MET
    lower = Bar(case="s", text="CPU × floor", measure="cpu", against="floor", at_most=1.4)
    assert ledger.judge("s", lower).standing is Standing.MISSED
    absent = Bar(case="s", text="CPU × Bun", measure="cpu", against="Bun", at_most=1.4)
    assert ledger.judge("s", absent).standing is Standing.UNMEASURED


def test_turns_are_interleaved_and_one_that_fails_does_not_stop_the_others(bench: Bench) -> None:
    taken: list[str] = []

    def take(subject: str, number: int) -> None:
        if subject == "broken":
            raise CrowdError("it broke")
        taken.append(subject)
        columns = (Column(measure="cpu", title="CPU", digits=2, ranged=True),)
        case = bench.ledger.case("tiny", "tiny", "A tiny case", columns)
        case.note(number, subject, cpu=1.0 + number)

    tiny = Scenario(
        name="tiny",
        about="nothing",
        turns=lambda _: [Turn(subject=name, take=partial(take, name)) for name in (OURS, "broken", "peer")],
        bars=lambda _: (Bar(case="tiny", text="CPU × peer", measure="cpu", against="peer", at_most=1),),
    )
    console = Console(file=StringIO(), width=150)
    (verdict,) = runner.run(bench, [tiny], console)
    assert taken == [OURS, "peer", "peer", OURS]
    assert verdict.standing is Standing.MET
    assert [remark.text for remark in bench.ledger.remarks] == ["broken: CrowdError in take: it broke"]
    assert not bench.ledger.is_sound

    report.show(console, bench.ledger, [verdict])
    assert isinstance(console.file, StringIO)
    assert "1.50 [1.00–2.00]" in console.file.getvalue()
    written = json.loads(json.dumps(report.as_json(bench.ledger, [verdict], {})))
    assert written["cases"]["tiny"]["subjects"]["peer"]["cpu"]["rounds"] == {"0": 1.0, "1": 2.0}
    assert written["bars"][0]["standing"] == "met"


def test_figures_of_incomplete_deliveries_come_with_a_warning(bench: Bench, peer: Server, cache: Path) -> None:
    with crowd([sys.executable, str(crowds.HERE / "viewers.py")], CORE, flavour="plain") as watching:
        watching.connect(peer.port, "/live", 2)
        bench.check("s", "peer", watching.report(), viewers=2, events=1)
    assert [remark.kind for remark in bench.ledger.remarks] == ["wrong"]


def test_an_earlier_release_is_measured_beside_this_one_by_turns(cache: Path) -> None:
    work = before.Work(viewers=3, small_rooms=2, intakes=4)
    begun: list[int] = []
    here = (servers.ROOT, Path(sys.executable))
    found = before.compare({"before": here, "now": here}, work, 2, cache=cache, begun=begun.append)
    assert begun == [1, 2]
    assert [len(turns) for turns in found.values()] == [2, 2]
    for turn in (turn for turns in found.values() for turn in turns):
        assert turn[before.WATCHED] - turn[before.UNWATCHED] == pytest.approx(turn[before.DELIVERY] * work.viewers)
        assert min(turn[before.INTAKE], turn[before.UNWATCHED], turn[before.SMALL_UNWATCHED]) > 0
        assert turn[before.BYTES] > 100


def test_a_release_is_compared_with_the_other_one_in_the_same_turn() -> None:
    console = Console(file=StringIO(), width=100)
    # Each turn costs more than the one before; this release takes 1 % to 100 % more.
    earlier = [{"CPU": 10.0 * number} for number in range(1, 101)]
    this = [{"CPU": turn["CPU"] * (1 + number / 100)} for number, turn in enumerate(earlier, 1)]
    console.print(before.table(earlier, this, "A hundred turns"))
    assert isinstance(console.file, StringIO)
    (line,) = (line for line in console.file.getvalue().splitlines() if "CPU" in line)
    assert [cell.strip() for cell in line.split("│")[1:-1]] == ["CPU", "505.0", "760.0", "1.50 [1.41–1.60]"]
