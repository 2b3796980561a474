"""The main menu: the pages that a person may see, with the number of open items on each."""

from dataclasses import dataclass
from datetime import datetime

from sqlmodel import Session

from distmark.compliance import service as compliance
from distmark.operations.alarms import alarm_count
from distmark.partners.model import Permission, Viewer
from distmark.settings import Mode
from distmark.tasks import service
from distmark.web.i18n import N_

# path, text, icon, permission (None: every role), only in a demo
PAGES: tuple[tuple[str, str, str, Permission | None, bool], ...] = (
    ("/", N_("Today"), "sun", None, False),
    ("/journeys", N_("Journeys"), "path", Permission.see_journeys, False),
    ("/approvals", N_("Approvals"), "check", Permission.approve_journeys, False),
    ("/campaigns", N_("Campaigns"), "flag", Permission.see_campaigns, False),
    ("/contacts", N_("Contacts"), "people", Permission.see_contacts, False),
    ("/segments", N_("Segments"), "group", Permission.see_campaigns, False),
    ("/results", N_("Results"), "bars", Permission.see_results, False),
    ("/partners", N_("Partners"), "people", Permission.manage_partners, False),
    ("/people", N_("Accounts"), "key", Permission.manage_people, False),
    ("/operations", N_("Operations"), "pulse", Permission.publish_campaigns, False),
    ("/rates", N_("Send rates"), "clock", Permission.run_operations, False),
    ("/mailbox", N_("Mailbox"), "mail", None, True),
)


@dataclass(frozen=True, slots=True)
class MenuItem:
    """One entry of the menu; `count` is the number of open items on its page, `words` a message id."""

    path: str
    words: str
    icon: str
    count: int
    current: bool


def menu_items(session: Session, viewer: Viewer, here: str, mode: Mode, now: datetime) -> list[MenuItem]:
    """Return the entries of the pages that this person may see, in order; the entry of the present page is `current`."""
    shown = [page for page in PAGES if (page[3] is None or viewer.may(page[3])) and (mode is Mode.demo or not page[4])]
    counts = {"/": _tasks_due(session, viewer, now), "/approvals": _approvals(session, viewer), "/operations": _alarms(session, viewer)}
    return [MenuItem(path, words, icon, counts.get(path, 0), _is_current(path, here)) for path, words, icon, _, _ in shown]


def _is_current(path: str, here: str) -> bool:
    return here == path if path == "/" else here == path or here.startswith(path + "/")


def _tasks_due(session: Session, viewer: Viewer, now: datetime) -> int:
    if viewer.partner_id is None:
        return 0
    return sum(1 for task in service.tasks_of(session, viewer) if task.due_at is None or task.due_at.date() <= now.date())


def _approvals(session: Session, viewer: Viewer) -> int:
    return len(compliance.waiting_approvals(session, viewer)) if viewer.may(Permission.approve_journeys) else 0


def _alarms(session: Session, viewer: Viewer) -> int:
    return alarm_count(session, viewer) if viewer.may(Permission.publish_campaigns) else 0
