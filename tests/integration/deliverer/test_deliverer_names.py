"""Looking names up on real threads, by a system's resolver that answers, hangs and fails as it is told."""

import asyncio
import socket
import subprocess
import sys

import pytest
from prometheus_client import CollectorRegistry
from system_names import System

from kapsel_deliverer.metrics import DelivererMetrics
from kapsel_deliverer.names import FRESH, QUICK, STALE, THREADS, SystemResolver


class Clock:
    """Seconds that pass as a test says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Resolving:
    """A resolver with what it counts."""

    def __init__(self, system: System, threads: int = THREADS) -> None:
        self.clock = Clock()
        self._registry = CollectorRegistry()
        self._made = SystemResolver(DelivererMetrics(self._registry), system, clock=self.clock, threads=threads)

    async def resolve(self, host: str) -> list[str]:
        return [result["host"] for result in await self._made.resolve(host, 443)]

    async def begin(self, *hosts: str) -> list[asyncio.Task[list[str]]]:
        """Begin to resolve names, whatever comes of it."""
        tasks = [asyncio.create_task(self.resolve(host)) for host in hosts]
        await asyncio.sleep(0)  # each has asked by now
        return tasks

    def metric(self, name: str, **labels: str) -> float:
        return self._registry.get_sample_value(name, labels) or 0.0

    async def hang(self, hosts: list[str], system: System) -> None:
        """Look names up that hang, and find nothing in the end."""
        system.failure = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        asked = system.asked.total()
        hanging = await self.begin(*hosts)
        await until(lambda: system.asked.total() == asked + len(hosts))
        self.clock.now += QUICK + 0.5
        system.released.set()
        await asyncio.gather(*hanging, return_exceptions=True)
        system.failure = None
        system.released.clear()


async def give_up(tasks: list[asyncio.Task[list[str]]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def until(holds) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.001)


def names(count: int) -> list[str]:
    return [f"hangs{number}.example" for number in range(count)]


async def test_forty_names_that_hang_keep_no_other_from_its_address(system: System) -> None:
    resolving = Resolving(system)
    hanging = await resolving.begin(*names(40))
    assert await resolving.resolve("new.example") == ["192.0.2.1"]
    assert resolving.metric("dns_lookups", state="running") == 40
    await give_up(hanging)
    assert await resolving.resolve("another.example") == ["192.0.2.1"]
    assert system.asked.total() == 42


async def test_an_address_needs_no_look_up_whatever_hangs(system: System) -> None:
    resolving = Resolving(system, threads=8)
    hanging = await resolving.begin(*names(100))
    assert await resolving.resolve("10.0.0.1") == ["10.0.0.1"]
    assert await resolving.resolve("fd00::1") == ["fd00::1"]
    assert not system.asked.keys() & {"10.0.0.1", "fd00::1"}
    await give_up(hanging)


async def test_whatever_hangs_a_name_that_has_answered_quickly_is_looked_up(system: System) -> None:
    resolving = Resolving(system, threads=8)
    await resolving.resolve("quick.example")
    resolving.clock.now += FRESH
    hanging = await resolving.begin(*names(100))
    assert resolving.metric("dns_lookups", state="waiting") == 94
    system.addresses = ["192.0.2.2"]
    assert await resolving.resolve("quick.example") == ["192.0.2.2"]
    await give_up(hanging)


async def test_names_that_hung_before_leave_threads_to_one_that_nobody_knows(system: System) -> None:
    resolving = Resolving(system, threads=8)
    await resolving.hang(names(6), system)
    resolving.clock.now += STALE - 1  # how they were is not forgotten
    again = await resolving.begin(*names(6))
    assert resolving.metric("dns_lookups", state="waiting") == 4
    assert await resolving.resolve("new.example") == ["192.0.2.1"]
    await give_up(again)


async def test_a_quick_name_finds_a_thread_beside_all_names_that_hang_known_for_it_or_not_and_renewed_or_not(
    system: System,
) -> None:
    resolving = Resolving(system)
    slow, renewed = [f"hangs-slow{number}.example" for number in range(THREADS // 2)], names(2 * THREADS)
    await resolving.hang(slow, system)
    system.released.set()
    for host in renewed:
        await resolving.resolve(host)
    system.failure = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    with pytest.raises(socket.gaierror):
        await resolving.resolve("failed.example")
    system.failure = None
    resolving.clock.now += FRESH
    system.released.clear()
    hanging = await resolving.begin(*slow, *renewed)
    new = [f"new{number}.example" for number in range(THREADS)]
    assert await asyncio.gather(*map(resolving.resolve, new)) == [["192.0.2.1"]] * THREADS
    hanging += await resolving.begin(*(f"hangs-new{number}.example" for number in range(THREADS)))
    assert await resolving.resolve("failed.example") == ["192.0.2.1"]
    await give_up(hanging)


async def test_names_that_were_quick_and_begin_to_hang_keep_none_waiting_that_has_no_address(system: System) -> None:
    resolving = Resolving(system, threads=8)
    system.released.set()
    known = names(20)
    for host in known:
        await resolving.resolve(host)
    resolving.clock.now += FRESH
    system.released.clear()
    hanging = await resolving.begin(*known)
    assert resolving.metric("dns_lookups", state="waiting") == 16
    assert await resolving.resolve("new.example") == ["192.0.2.1"]
    resolving.clock.now += QUICK  # and those that hang do with what they have
    assert await asyncio.gather(*hanging) == [["192.0.2.1"]] * 20


async def test_slow_names_find_threads_beside_those_that_are_renewed_and_leave_some_to_one_that_nobody_knows(
    system: System,
) -> None:
    resolving = Resolving(system, threads=8)
    slow, renewed = [f"hangs-slow{number}.example" for number in range(6)], names(20)
    await resolving.hang(slow, system)
    system.released.set()
    for host in renewed:
        await resolving.resolve(host)
    resolving.clock.now += FRESH
    system.released.clear()
    hanging = await resolving.begin(*renewed)
    await until(lambda: system.asked.total() == 6 + 20 + 4)
    resolving.clock.now += QUICK + 0.5  # they hang by now
    hanging += await resolving.begin(*slow)
    await until(lambda: sum(system.asked[host] for host in slow) == 8)
    assert await resolving.resolve("new.example") == ["192.0.2.1"]
    await give_up(hanging)


async def test_a_look_up_that_was_given_up_has_its_thread_until_it_returns(system: System) -> None:
    resolving = Resolving(system, threads=8)
    await give_up(await resolving.begin(*names(6)))
    late = await resolving.begin("late.example")
    assert resolving.metric("dns_lookups", state="waiting") == 1
    await until(lambda: system.asked.total() == 6)
    system.released.set()
    assert await late[0] == ["192.0.2.1"]


async def test_what_nobody_waits_for_any_more_is_not_looked_up(system: System) -> None:
    resolving = Resolving(system, threads=4)
    await give_up(await resolving.begin(*names(50)))
    assert resolving.metric("dns_lookups", state="waiting") == 0
    system.released.set()
    await until(lambda: resolving.metric("dns_lookups", state="running") == 0)
    assert system.asked.total() == 3


async def test_a_name_has_one_look_up_whoever_waits_and_whoever_gives_up(system: System) -> None:
    resolving = Resolving(system)
    leaving, *staying = await resolving.begin(*["hangs.example"] * 20)
    await until(lambda: system.asked.total() == 1)
    await give_up([leaving])
    staying += await resolving.begin("hangs.example")
    system.released.set()
    assert await asyncio.gather(*staying) == [["192.0.2.1"]] * 20
    assert system.asked.total() == 1


async def test_a_name_that_was_never_found_is_waited_for_less_long_than_a_connection_may_take(system: System) -> None:
    with pytest.raises(socket.gaierror, match="no answer in time"):
        await asyncio.wait_for(Resolving(system).resolve("hangs.example"), 60)


async def test_addresses_are_kept_for_half_a_minute_and_taken_in_turn(system: System) -> None:
    system.addresses = ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
    resolving = Resolving(system)
    first = [(await resolving.resolve("shop.example"))[0] for _ in range(6)]
    assert sorted(first) == sorted(system.addresses * 2)
    assert first[:3] == first[3:]
    resolving.clock.now += FRESH - 0.1
    await resolving.resolve("shop.example")
    assert system.asked.total() == 1
    resolving.clock.now += 0.1
    system.addresses = ["192.0.2.4"]
    assert await resolving.resolve("shop.example") == ["192.0.2.4"]


async def test_while_a_name_hangs_its_last_addresses_are_used_for_an_hour(system: System) -> None:
    resolving = Resolving(system)
    await resolving.resolve("shop.example")
    resolving.clock.now += FRESH
    system.hangs = True
    waits = await resolving.begin("shop.example")
    await until(lambda: system.asked.total() == 2)
    resolving.clock.now += QUICK  # and whoever comes now does not wait at all
    assert await resolving.resolve("shop.example") == ["192.0.2.1"]
    assert await waits[0] == ["192.0.2.1"]
    assert resolving.metric("dns_stale_answers_total") == 2
    resolving.clock.now += STALE - FRESH - QUICK
    with pytest.raises(socket.gaierror):
        await resolving.resolve("shop.example")
    assert system.asked.total() == 2


async def test_a_look_up_that_fails_leaves_the_last_addresses_and_a_name_that_is_gone_has_none(system: System) -> None:
    resolving = Resolving(system)
    await resolving.resolve("shop.example")
    resolving.clock.now += FRESH
    system.failure = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    assert await resolving.resolve("shop.example") == ["192.0.2.1"]
    system.failure = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    for _ in range(2):
        with pytest.raises(socket.gaierror, match="not known"):
            await resolving.resolve("shop.example")
    assert resolving.metric("dns_lookup_duration_seconds_count", result="failed") == 3


async def test_what_was_known_of_names_is_forgotten_after_an_hour(system: System) -> None:
    resolving = Resolving(system)
    for number in range(100):
        await resolving.resolve(f"old{number}.example")
    resolving.clock.now += STALE
    await resolving.resolve("new.example")
    assert list(resolving._made._known) == [("new.example", socket.AF_UNSPEC)]


async def test_a_name_that_no_name_can_be_like_does_not_exist() -> None:
    resolver = SystemResolver(DelivererMetrics(CollectorRegistry()))
    for host in ("a..example", f"{'a' * 64}.example"):
        with pytest.raises(socket.gaierror):
            await resolver.resolve(host, 443)


async def test_the_systems_own_files_are_asked() -> None:
    found = await SystemResolver(DelivererMetrics(CollectorRegistry())).resolve("localhost", 443)
    assert {result["host"] for result in found} <= {"127.0.0.1", "::1"}
    assert {result["port"] for result in found} == {443}


ENDING = """
import asyncio, threading
from prometheus_client import CollectorRegistry
from kapsel_deliverer.metrics import DelivererMetrics
from kapsel_deliverer.names import SystemResolver

async def main():
    resolver = SystemResolver(DelivererMetrics(CollectorRegistry()), lambda *_: threading.Event().wait())
    asked = asyncio.create_task(resolver.resolve("hangs.example"))
    await asyncio.sleep(0)
    asked.cancel()
    await resolver.close()

asyncio.run(main())
print("ended")
"""


def test_a_process_ends_though_a_name_hangs() -> None:
    ended = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "ended\n"
