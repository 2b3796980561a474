"""Events per second accepted and committed: in batches of 1,000 and one by one, over HTTP by the real web process, and by the call alone.

Every event is of a contact who waits in a journey for another one, so each is judged and nobody wakes. The baseline is the call alone.
Sizes: BENCH_EVENTS (20,000 in batches), BENCH_SINGLE_EVENTS (3,000), BENCH_CLIENTS (8 at once); BENCH_DATABASE chooses the database.
"""

import http.client
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any
from urllib.parse import urlsplit

from distmark.clock import wall_now
from distmark.engagement.events import MOST_EVENTS, NewEvent, record_events
from distmark.sql import batches, id_of
from tests.bench.bench_early import api_token
from tests.bench.bench_finding import fill_waiting
from tests.bench.report import report
from tests.bench.stand import Plant, kind, people, plant, say, settle, size, web

MANY, SINGLE, CLIENTS = size("EVENTS", 20_000), size("SINGLE_EVENTS", 3_000), size("CLIENTS", 8)
AIM_BATCHES, AIM_SINGLE = 5_000.0, 1_000.0
_keys = count(1)


def main() -> None:
    """Measure the call, then the web process."""
    with plant(with_prefect=False) as here:
        ids = people(here.stage, MANY)
        fill_waiting(here.stage, ids, due=0)
        settle(here.db)
        say(f"{MANY:,} contacts wait")
        cpu = time.process_time()
        call_batches = _of_calls(here, [list(part) for part in batches(_events(ids, MANY), MOST_EVENTS)])
        report(f"events_{kind()}_call_batches_cpu", (time.process_time() - cpu) / MANY * 1000, "ms CPU/event")  # of this process alone
        call_single = _of_calls(here, [[event] for event in _events(ids, SINGLE)])
        report(f"events_{kind()}_call_batches", call_batches, "events/s", call_single, at_least=AIM_BATCHES)
        report(f"events_{kind()}_call_single", call_single, "events/s")  # one caller, who waits for each commit
        with web(here) as address:
            token = api_token(here, here.stage.viewer.user_id)
            many = [{"events": part} for part in batches([_told(event) for event in _events(ids, MANY)], MOST_EVENTS)]
            http_batches = _over_http(address, token, many, MANY, 2)
            report(f"events_{kind()}_http_batches", http_batches, "events/s", call_batches, at_least=AIM_BATCHES)
            http_single = _over_http(address, token, [_told(event) for event in _events(ids, SINGLE)], SINGLE, CLIENTS)
            report(f"events_{kind()}_http_single", http_single, "events/s", call_single, at_least=AIM_SINGLE)


def _events(ids: Sequence[int], many: int) -> Iterator[NewEvent]:
    for number in range(many):
        yield NewEvent("page_viewed", contact_id=ids[number % len(ids)], data={"page": "/plans"}, key=f"view-{next(_keys)}")


def _told(event: NewEvent) -> dict[str, Any]:
    return {"name": event.name, "contact_id": event.contact_id, "data": dict(event.data), "key": event.key}


def _of_calls(here: Plant, parts: Sequence[Sequence[NewEvent]]) -> float:
    began = time.perf_counter()
    for part in parts:
        with here.db.writing() as session:
            record_events(session, id_of(here.stage.brand), part, wall_now())
    return sum(len(part) for part in parts) / (time.perf_counter() - began)


def _over_http(address: str, token: str, bodies: Sequence[dict[str, Any]], many: int, clients: int) -> float:
    """Return how many events per second so many clients, each over one connection, get accepted."""
    sent = [json.dumps(body).encode() for body in bodies]
    with ThreadPoolExecutor(clients) as pool:
        began = time.perf_counter()
        accepted = sum(pool.map(lambda share: _post(address, token, share), [sent[place::clients] for place in range(clients)]))
        seconds = time.perf_counter() - began
    if accepted != many:
        raise RuntimeError(f"{many} events were told and {accepted} accepted.")
    return many / seconds


def _post(address: str, token: str, bodies: Sequence[bytes]) -> int:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    accepted = 0
    for body in bodies:
        connection.request("POST", "/api/v1/events", body, headers)
        answer = connection.getresponse()
        told = answer.read()
        if answer.status >= 400:
            raise RuntimeError(f"The web process answered {answer.status}: {told[:300]!r}")
        accepted += int(json.loads(told).get("recorded", 1))
    connection.close()
    return accepted
