"""The same counts made again from the raw rows by plain SQL: proof of the roll-up, which shares nothing with it but metric names."""

import re
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any

from sqlalchemy import text
from sqlmodel import Session

from distmark.metrics.model import Key, Tally
from distmark.sql import on_sqlite

# Written for SQLite; what Postgres says otherwise stands in POSTGRES.
MOVES = """
SELECT e.version_id, m.step_id, coalesce(e.campaign_id, 0), e.partner_id, date(m.at), CAST(m.kind AS TEXT), count(*), 0.0
FROM move m JOIN enrollment e ON e.id = m.enrollment_id
WHERE m.kind IN ('passed', 'waiting', 'held', 'branched', 'task', 'skipped', 'error', 'sent', 'failed', 'suppressed', 'uncertain')
GROUP BY 1, 2, 3, 4, 5, 6
UNION ALL
SELECT e.version_id, '', coalesce(e.campaign_id, 0), e.partner_id, date(m.at), CAST(m.kind AS TEXT), count(*), 0.0
FROM move m JOIN enrollment e ON e.id = m.enrollment_id
WHERE m.kind IN ('entered', 'ended')
GROUP BY 1, 2, 3, 4, 5, 6
UNION ALL
SELECT e.version_id, '', coalesce(e.campaign_id, 0), e.partner_id, date(m.at),
       'ended:' || coalesce(nullif(json_extract(m.detail, '$.outcome'), ''), 'unknown'), count(*), 0.0
FROM move m JOIN enrollment e ON e.id = m.enrollment_id
WHERE m.kind = 'ended'
GROUP BY 1, 2, 3, 4, 5, 6
"""

# One row per event that belongs to a journey, with the place where it is counted.
PLACED = """
WITH placed AS (
  SELECT v.id, v.at, v.kind, v.verdict, v.name, v.link, v.first, v.value, v.message_id, v.enrollment_id,
         coalesce(m.version_id, e.version_id) AS version_id,
         CASE WHEN v.kind IN ('converted', 'custom') THEN '' ELSE coalesce(m.step_id, '') END AS step_id,
         coalesce(m.campaign_id, e.campaign_id, 0) AS campaign_id,
         coalesce(m.partner_id, e.partner_id) AS partner_id
  FROM engagement_event v
  LEFT JOIN message m ON m.id = v.message_id
  LEFT JOIN enrollment e ON e.id = coalesce(v.enrollment_id, m.enrollment_id)
  WHERE coalesce(m.version_id, e.version_id) IS NOT NULL
    AND julianday(v.at) BETWEEN 2440587.5 AND julianday(v.received_at) + 1.0 / 24
)
"""
EVERY_TIME = """
SELECT version_id, step_id, campaign_id, partner_id, date(at),
       CASE WHEN kind = 'converted' THEN 'conversions'
            WHEN kind = 'custom' THEN 'event:' || name
            WHEN verdict = 'machine' THEN CAST(kind AS TEXT) || '_machine'
            WHEN kind = 'opened' THEN 'opens'
            ELSE 'clicks' END,
       count(*), sum(CASE WHEN kind IN ('converted', 'custom') THEN coalesce(value, 0.0) ELSE 0.0 END)
FROM placed
WHERE kind IN ('converted', 'custom') OR kind IN ('opened', 'clicked')
GROUP BY 1, 2, 3, 4, 5, 6
UNION ALL
SELECT version_id, step_id, campaign_id, partner_id, date(at), 'link:' || link, count(*), 0.0
FROM placed
WHERE kind = 'clicked' AND verdict <> 'machine' AND first AND link <> ''
GROUP BY 1, 2, 3, 4, 5, 6
"""
# Once per message on the day of the earliest; conversions, and what has no message, once per enrollment.
ONCE = """
SELECT version_id, step_id, campaign_id, partner_id, day, CAST(kind AS TEXT), count(*), 0.0
FROM (
  SELECT version_id, step_id, campaign_id, partner_id, kind, date(min(at)) AS day
  FROM placed
  WHERE (kind IN ('unsubscribed', 'bounced', 'complained', 'converted')
         OR (kind IN ('opened', 'clicked', 'replied') AND verdict <> 'machine'))
    AND coalesce(message_id, enrollment_id) IS NOT NULL
  GROUP BY version_id, step_id, campaign_id, partner_id, kind,
           CASE WHEN enrollment_id IS NOT NULL AND (kind = 'converted' OR message_id IS NULL) THEN -enrollment_id ELSE message_id END
) AS counted
GROUP BY 1, 2, 3, 4, 5, 6
"""
POSTGRES = (
    ("date(m.at)", "date(m.at AT TIME ZONE 'UTC')"),
    ("date(at)", "date(at AT TIME ZONE 'UTC')"),
    ("date(min(at))", "date(min(at) AT TIME ZONE 'UTC')"),
    (
        "julianday(v.at) BETWEEN 2440587.5 AND julianday(v.received_at) + 1.0 / 24",
        "v.at BETWEEN '1970-01-01 00:00:00+00' AND v.received_at + interval '1 hour'",
    ),
    ("json_extract(m.detail, '$.outcome')", "m.detail->>'outcome'"),
)


def recount(session: Session, version_ids: Iterable[int] | None = None) -> dict[Key, Tally]:
    """Return every count that is not zero, from the raw rows alone; the cost follows the whole history."""
    wanted = None if version_ids is None else set(version_ids)
    rows = [row for statement in (MOVES, PLACED + EVERY_TIME, PLACED + ONCE) for row in session.execute(text(_dialect(session, statement)))]
    return {_key(row[:6]): Tally(row[6], float(row[7])) for row in rows if wanted is None or row[0] in wanted}


def _dialect(session: Session, statement: str) -> str:
    if not on_sqlite(session):
        for sqlite, postgres in POSTGRES:
            statement = statement.replace(sqlite, postgres)
    return re.sub(r"(?<!\\):", r"\\:", statement)  # a colon here is never a parameter


def _key(values: Sequence[Any]) -> Key:
    version_id, step_id, campaign_id, partner_id, day, metric = values
    return Key(version_id, step_id, campaign_id, partner_id, day if isinstance(day, date) else date.fromisoformat(day), str(metric))
