"""Human or machine? Pure. One sign is a hint, two decide; the raw event is kept either way."""

from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache

from crawleruseragents import is_crawler

from distmark.engagement.model import Verdict

TOO_FAST = timedelta(seconds=2)
BURST = timedelta(seconds=2)
BURST_LINKS = 3

SCANNERS = (
    "barracuda",
    "proofpoint",
    "mimecast",
    "safelinks",
    "trendmicro",
    "symantec",
    "fortimail",
    "urldefense",
    "python-requests",
    "curl/",
)


@dataclass(frozen=True, slots=True)
class Signs:
    """The signs of one request. `since_sent` is None when the message's time is unknown; `links_in_burst` counts distinct links."""

    user_agent: str
    since_sent: timedelta | None = None
    links_in_burst: int = 1
    is_open: bool = False


def judge(signs: Signs) -> Verdict:
    """Return the verdict: machine when the signs weigh two or more, unknown at one, else human.

    An agent that calls itself a crawler or a known scanner weighs two. A bare `Mozilla/5.0` fetching an image is Apple's privacy proxy,
    which fetches soon after delivery whether or not anyone reads; Google's image proxy fetches when a person opens, and is human.
    """
    weight = _agent_weight(signs)
    if signs.since_sent is not None and signs.since_sent < TOO_FAST:
        weight += 1
    if signs.links_in_burst >= BURST_LINKS:
        weight += 1
    if weight >= 2:
        return Verdict.machine
    return Verdict.unknown if weight else Verdict.human


def _agent_weight(signs: Signs) -> int:
    agent = signs.user_agent.strip()
    if not agent:
        return 1
    if "googleimageproxy" in agent.lower():
        return 0
    if agent == "Mozilla/5.0":
        return 2 if signs.is_open else 1
    return 2 if _is_declared_machine(agent) else 0


@lru_cache(maxsize=4096)
def _is_declared_machine(agent: str) -> bool:
    lowered = agent.lower()
    return any(name in lowered for name in SCANNERS) or is_crawler(agent)


def counts_as_human(verdict: Verdict) -> bool:
    """Return whether branches and unique counts take the event as a person's: all but machines do, since one hint does not decide."""
    return verdict is not Verdict.machine
