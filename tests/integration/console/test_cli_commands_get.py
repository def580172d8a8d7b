"""`kapsel get` and `kapsel tail` as people run them, against a real console."""

import asyncio
import json
import signal

import yaml

from kapsel_store.states import State

DEADLINE = 240.0


async def line(process: asyncio.subprocess.Process, holding: str) -> str:
    """Return the first line of output that holds a text."""
    async with asyncio.timeout(DEADLINE):
        assert process.stdout is not None
        while read := await process.stdout.readline():
            if holding in read.decode():
                return read.decode()
    raise AssertionError(f"no line holds {holding}")


async def interrupt(process: asyncio.subprocess.Process) -> tuple[int | None, str]:
    process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), DEADLINE)
    return process.returncode, err.decode()


async def test_deliveries_are_a_plain_table_in_a_pipe(console, world, kapsel) -> None:
    (event, _) = await world.put(2)
    await world.attempt(count=1)
    ran = await kapsel("get", "deliveries", "--server", console.url)
    assert (ran.code, ran.err) == (0, "")
    heading, *rows = ran.out.splitlines()
    assert heading.split() == ["ID", "ENDPOINT", "DESTINATION", "STATE", "ATTEMPTS", "REASON", "DUE", "AGE"]
    assert sorted(row.split()[3] for row in rows) == ["delivered", "pending"]
    assert "\x1b" not in ran.out
    assert all(row == row.rstrip() for row in rows)
    assert [row.index("shop/orders") for row in rows] == [heading.index("ENDPOINT")] * 2
    ran = await kapsel(
        "get", "deliveries", "--server", console.url, "--event", str(event.id), "--state", "pending,delivered"
    )
    assert len(ran.out.splitlines()) == 2


async def test_every_kind_has_a_table_a_wide_one_json_and_yaml(console, world, kapsel) -> None:
    await world.delivered(2)
    for kind in ("endpoints", "events", "deliveries", "attempts", "log"):
        ran = await kapsel("get", kind, "-o", "wide", "--server", console.url)
        assert ran.code == 0, ran.err
        assert len(ran.out.splitlines()) == (2 if kind == "log" else 3)
    as_json = await kapsel("get", "attempts", "-o", "json", "--server", console.url)
    as_yaml = await kapsel("get", "attempts", "-o", "yaml", "--server", console.url)
    assert json.loads(as_json.out) == yaml.safe_load(as_yaml.out)
    assert len(json.loads(as_json.out)["items"]) == 2


async def test_one_item_is_shown_whole(console, world, kapsel) -> None:
    (event,) = await world.put(body=b'{"hello": "world"}')
    ran = await kapsel("get", "event", str(event.id), "-o", "yaml", "--server", console.url)
    assert yaml.safe_load(ran.out)["body_text"] == '{"hello": "world"}'
    ran = await kapsel("get", "endpoint", "orders", "-o", "json", "--server", console.url)
    assert json.loads(ran.out)["destinations"][0]["name"] == "billing"


async def test_more_than_a_page_is_fetched_when_asked_for(console, world, kapsel) -> None:
    await world.put(450)
    ran = await kapsel("get", "events", "--limit", "430", "--server", console.url)
    assert len(ran.out.splitlines()) == 431
    ran = await kapsel("get", "events", "--server", console.url)
    assert len(ran.out.splitlines()) == 51


async def test_a_table_that_was_cut_off_says_so_beside_the_pipe(console, world, kapsel) -> None:
    await world.put(51)
    ran = await kapsel("get", "events", "--server", console.url)
    assert (len(ran.out.splitlines()), ran.err) == (
        51,
        "There are more than these 50. Show more with --limit N, or all with -o json.\n",
    )
    ran = await kapsel("get", "events", "--limit", "51", "--server", console.url)
    assert (len(ran.out.splitlines()), ran.err) == (52, "")


async def test_json_and_yaml_are_whole_unless_a_limit_is_given(console, world, kapsel) -> None:
    stored = {str(event.id) for event in await world.put(450)}
    ran = await kapsel("get", "events", "-o", "json", "--server", console.url)
    assert {item["id"] for item in json.loads(ran.out)["items"]} == stored
    assert ran.out == json.dumps(json.loads(ran.out), indent=2) + "\n"
    ran = await kapsel("get", "deliveries", "-o", "yaml", "--server", console.url)
    assert len(yaml.safe_load(ran.out)["items"]) == 450
    ran = await kapsel("get", "events", "-o", "json", "--limit", "3", "--server", console.url)
    assert (len(json.loads(ran.out)["items"]), ran.err) == (3, "")


async def test_nothing_to_show_says_what_to_do_on_standard_error(console, kapsel) -> None:
    ran = await kapsel("get", "events", "--server", console.url)
    assert (ran.code, ran.out) == (0, "")
    assert "kapsel send" in ran.err
    ran = await kapsel("get", "deliveries", "--state", "exhausted", "--since", "1h", "--server", console.url)
    assert (ran.code, ran.out) == (0, "")
    assert "--state exhausted --since 1h" in ran.err
    ran = await kapsel("get", "events", "-o", "json", "--server", console.url)
    assert json.loads(ran.out) == {"items": []}


async def test_what_comes_from_outside_cannot_write_to_the_terminal(console, world, kapsel) -> None:
    await world.put()
    await world.connection.execute("UPDATE events SET content_type = 'text/\x1b[31mred'")
    ran = await kapsel("get", "events", "--server", console.url)
    assert "\x1b" not in ran.out
    assert "text/\\x1b[31mred" in ran.out


async def test_a_wrong_filter_is_refused_with_what_is_allowed(console, kapsel) -> None:
    ran = await kapsel("get", "deliveries", "--state", "done", "--server", console.url)
    assert (ran.code, ran.out) == (1, "")
    assert "pending, sending, delivered, exhausted, cancelled" in ran.err
    ran = await kapsel("get", "events", "--state", "pending", "--server", console.url)
    assert ran.code == 2
    ran = await kapsel("get", "events", "--endpoint", "nobody", "--server", console.url)
    assert ran.code == 1
    assert "kapsel get endpoints" in ran.err
    ran = await kapsel("get", "endpoint", "shop/nobody", "--server", console.url)
    assert (ran.code, ran.out) == (1, "")


async def test_a_watch_prints_what_changes_and_ends_well_with_ctrl_c(console, world, kapsel) -> None:
    (event,) = await world.put()
    process = await kapsel.start("get", "deliveries", "--watch", "--server", console.url)
    delivery = str(event.deliveries[0].id)
    assert "pending" in await line(process, delivery)
    await world.attempt(State.EXHAUSTED)
    assert "exhausted" in await line(process, delivery)
    code, err = await interrupt(process)
    assert (code, err) == (0, "")


async def test_tail_shows_each_attempt_once_as_it_happens(console, world, kapsel) -> None:
    await world.put(3)
    await world.attempt(count=2)
    process = await kapsel.start("tail", "--last", "1", "--endpoint", "orders", "-o", "json", "--server", console.url)
    seen = [json.loads(await line(process, "status_200"))["id"]]
    await world.put(1, to=world.crm)
    await world.attempt(to=world.crm)
    (last,) = await world.attempt(State.EXHAUSTED)
    seen.append(json.loads(await line(process, "status_500"))["id"])
    assert seen[1] == str(last.id)
    assert len(set(seen)) == 2
    code, err = await interrupt(process)
    assert (code, err) == (0, "")


async def test_tail_as_text_is_one_line_an_attempt(console, world, kapsel) -> None:
    await world.put()
    (attempt,) = await world.attempt()
    process = await kapsel.start("tail", "--server", console.url, PYTHONIOENCODING="utf-8")
    shown = await line(process, str(attempt.id))
    assert "✓ shop/orders → billing  200  try 1  3ms" in shown
    await interrupt(process)
