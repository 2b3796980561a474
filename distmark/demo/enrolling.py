"""A partner at the pages, without a person: signs in, ticks contacts, and presses send, by the same requests a browser makes."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from html import unescape

import httpx2

from distmark.demo.brands import PASSWORD
from distmark.errors import DistmarkError

CAMPAIGN = re.compile(r'href="/campaigns/(\d+)"[^>]*>(.*?)</a>', re.DOTALL)
TICK = re.compile(r'<input[^>]*name="contact"[^>]*value="(\d+)"')


class PageProblem(DistmarkError):
    """A page did not answer as a person at it would expect."""


@dataclass(frozen=True, slots=True)
class Enrolled:
    """The enrolment of one partner: the campaign, and the contacts that the confirm page listed; none when nobody could begin."""

    campaign_id: int
    contact_ids: tuple[int, ...]


class PartnerAtWork:
    """One partner's browser. Use as a context manager."""

    def __init__(self, base_url: str, email: str) -> None:
        self.email = email
        # A browser names the page's own origin with every form; without it the request is refused as coming from elsewhere.
        headers = {
            "origin": base_url,
            "accept-language": "ja",
            "user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        }
        self._http = httpx2.Client(base_url=base_url, headers=headers, follow_redirects=False, trust_env=False, timeout=60)

    def __enter__(self) -> "PartnerAtWork":
        self._post("/sign-in", [("email", self.email), ("password", PASSWORD), ("next", "/")])
        return self

    def __exit__(self, *exc: object) -> None:
        self._http.close()

    def enrol(self, more: int, named: str = "") -> Enrolled:
        """Add `more` contacts to the first campaign with that name, and send it off for everybody waiting in it, if there is anybody.

        Raises PageProblem when a page does not answer as it should.
        """
        found = [number for number, shown in CAMPAIGN.findall(self._get("/campaigns")) if named in unescape(shown)]
        if not found:
            raise PageProblem(f"{self.email} sees no campaign {named} on /campaigns.")
        campaign = f"/campaigns/{found[0]}"
        ticked = TICK.findall(self._get(f"{campaign}/people"))[:more]
        if ticked:
            self._post(f"{campaign}/people", [("then", "send"), *(("contact", each) for each in ticked)])
        confirmed = TICK.findall(self._get(f"{campaign}/send"))
        if confirmed:
            self._post(f"{campaign}/send", [("contact", each) for each in confirmed])
        return Enrolled(int(found[0]), tuple(map(int, confirmed)))

    def _get(self, path: str) -> str:
        answer = self._http.get(path)
        if answer.status_code != 200:
            raise PageProblem(f"GET {path} as {self.email} answered {answer.status_code}.")
        return answer.text

    def _post(self, path: str, fields: Iterable[tuple[str, str]]) -> None:
        body: dict[str, list[str]] = {}
        for name, value in fields:
            body.setdefault(name, []).append(value)
        answer = self._http.post(path, data=body)
        if answer.status_code != 303:
            raise PageProblem(f"POST {path} as {self.email} answered {answer.status_code}.")
