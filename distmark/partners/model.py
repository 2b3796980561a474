"""Roles, their permissions, and the viewer on whose behalf a query is made. Pure."""

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """The role of a person. Roles of the brand see the whole brand; role partner sees the rows of its own partner only."""

    marketer = "marketer"
    approver = "approver"
    partner = "partner"
    ops = "ops"


class Permission(StrEnum):
    """A permission; every route and every use case names one."""

    see_journeys = "see_journeys"
    write_journeys = "write_journeys"
    approve_journeys = "approve_journeys"
    register_journeys = "register_journeys"
    publish_campaigns = "publish_campaigns"
    see_campaigns = "see_campaigns"
    enrol_contacts = "enrol_contacts"
    see_contacts = "see_contacts"
    write_contacts = "write_contacts"
    write_segments = "write_segments"
    see_results = "see_results"
    run_operations = "run_operations"
    record_events = "record_events"
    use_api = "use_api"
    manage_partners = "manage_partners"  # partners, and the accounts of their people
    manage_people = "manage_people"  # the accounts of the brand's own people


PERMISSIONS: dict[Role, frozenset[Permission]] = {
    Role.marketer: frozenset(
        {
            Permission.see_journeys,
            Permission.write_journeys,
            Permission.register_journeys,
            Permission.publish_campaigns,
            Permission.see_campaigns,
            Permission.write_segments,
            Permission.see_results,
            Permission.use_api,
            Permission.manage_partners,
        }
    ),
    Role.approver: frozenset(
        {
            Permission.see_journeys,
            Permission.approve_journeys,
            Permission.see_campaigns,
            Permission.see_results,
            Permission.use_api,
        }
    ),
    Role.partner: frozenset(
        {
            Permission.see_campaigns,
            Permission.enrol_contacts,
            Permission.see_contacts,
            Permission.write_contacts,
            Permission.write_segments,
            Permission.record_events,
            Permission.see_results,
            Permission.use_api,
        }
    ),
    Role.ops: frozenset(Permission),
}


@dataclass(frozen=True, slots=True)
class Viewer:
    """The person on whose behalf code runs: every query starts from a viewer. `partner_id` is None for people of the brand."""

    user_id: int
    role: Role
    brand_id: int
    partner_id: int | None
    name: str
    language: str = "ja"

    def may(self, permission: Permission) -> bool:
        """Return whether the viewer's role has the permission; for which rows, brand and partner decide."""
        return permission in PERMISSIONS[self.role]
