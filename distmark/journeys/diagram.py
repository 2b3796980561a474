"""A journey as a picture (SVG) and as a list, drawn without any other program.

The picture needs no style sheet: colours are presentation attributes. A page may dress it by class: `journey-picture`, `journey-node`,
`journey-node-<kind>`, `journey-edge`, `journey-box`, `journey-name`, `journey-count`, `journey-note`, `journey-link`, `journey-line`,
`journey-arm`, `journey-jump`, `journey-arrow`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from unicodedata import east_asian_width

from distmark.journeys.describe import describe_step
from distmark.journeys.program import Program
from distmark.journeys.steps import KINDS, Path, Step

__all__ = ["OutlineItem", "StepCounts", "describe_step", "diagram", "outline"]

GOAL = "goal"
NODE_WIDTH, ARM_WIDTH, GAP, MARGIN = 300, 200, 14, 16
EDGE_WIDTH, PADDING_X, PADDING_Y = 5, 14, 9
NAME_SIZE, NAME_LINE, NOTE_SIZE, NOTE_LINE = 14, 20, 12, 17
LINK_HEIGHT, FORK_HEIGHT, ARM_LABEL_HEIGHT, JOIN_HEIGHT = 26, 22, 18, 16
WIDEST_LINK, NARROWEST_LINK, PLAIN_LINK = 120, 2, 3
MOST_LINES = 2
NARROW_EM = 0.66  # bold Latin of a wide font: better too much room than a cut number
LANE, ARROW = 12, 5
INK, INK_SOFT, LINE, PAPER, LINK, GOAL_COLOUR = "#1d2733", "#616e7c", "#cbd2d9", "#ffffff", "#cfe8e5", "#1f7a4d"
FONT = "system-ui, 'Hiragino Sans', 'Yu Gothic UI', 'Noto Sans CJK JP', 'Noto Sans JP', sans-serif"
WAITING_KINDS = ("wait",)
WORDS = {
    "next": {"ja": "そのまま次へ", "en": "Straight on"},
    "none": {"ja": "どれでもない", "en": "none of these"},
    "goal": {"ja": "目標", "en": "Goal"},
    "target": {"ja": "目標値 {target}", "en": "target {target}"},
    "about": {
        "ja": "ジャーニーの図。{count} ステップ。同じ内容を一覧でも読めます。",
        "en": "Picture of the journey, {count} steps. The same is there as a list.",
    },
    "people": {"ja": "{count} 人", "en": "{count} people"},
}


@dataclass(frozen=True, slots=True)
class StepCounts:
    """People at a step: how many ever arrived, how many are there now, how many went on. `note` replaces the second line."""

    arrived: int = 0
    here: int = 0
    passed: int = 0
    note: str = ""


Counts = Mapping[str, StepCounts]


@dataclass(frozen=True, slots=True)
class OutlineItem:
    """One line of the list: `number` such as "3" or "3.1.2" (step 3, first arm, its second step), `arm` the arm that it begins."""

    step_id: str
    number: str
    depth: int
    arm: str | None
    kind: str
    kind_label: str
    icon: str
    title: str
    detail: str
    jumps_to: tuple[str, ...]
    counts: StepCounts | None
    share: float | None


def outline(program: Program, lang: str, counts: Counts | None = None) -> tuple[OutlineItem, ...]:
    """Return the journey as an ordered list, steps inside arms after their split.

    Shares are 0 to 1 of those who entered, None without counts.
    """
    lang = _lang(lang)
    return tuple(_listed(program, program.definition.steps, lang, counts, "", None, 0))


def _lang(lang: str) -> str:
    return "ja" if lang == "ja" else "en"


def _listed(
    program: Program, steps: tuple[Step, ...], lang: str, counts: Counts | None, prefix: str, arm: str | None, depth: int
) -> list[OutlineItem]:
    items: list[OutlineItem] = []
    for position, nested in enumerate(steps):
        step, number = program.steps[nested.id], f"{prefix}{position + 1}"
        items.append(_item(program, step, lang, counts, number, arm if position == 0 else None, depth))
        for index, path in enumerate(step.paths()):
            items += _listed(program, path.steps, lang, counts, f"{number}.{index + 1}.", path.words(lang), depth + 1)
    return items


def _item(program: Program, step: Step, lang: str, counts: Counts | None, number: str, arm: str | None, depth: int) -> OutlineItem:
    kind = KINDS[step.kind]
    title, detail = describe_step(step, lang, program.definition)
    jumps = tuple(target for _, target in step.targets())
    count = counts.get(step.id) if counts is not None else None
    return OutlineItem(
        step.id, number, depth, arm, step.kind, kind.label[lang], kind.icon, title, detail, jumps, count, _share(program, counts, step.id)
    )


def _share(program: Program, counts: Counts | None, step_id: str) -> float | None:
    if counts is None:
        return None
    entered = counts.get(program.first, StepCounts()).arrived
    return min(1.0, counts.get(step_id, StepCounts()).arrived / entered) if entered else 0.0


def diagram(program: Program, lang: str, counts: Counts | None = None) -> str:
    """Return the journey as an SVG element.

    With `counts` (by step id; "goal" for the goal) it shows people, and links as wide as the share that goes on.
    """
    return _Picture(program, _lang(lang), counts).draw()


def text_width(text: str, size: float) -> float:
    """Return about how many pixels `text` takes: a full-width character is as wide as it is high."""
    return sum(size if east_asian_width(character) in "WFA" else size * NARROW_EM for character in text)


def wrapped(text: str, width: float, size: float, most_lines: int = MOST_LINES) -> list[str]:
    """Return `text` in at most `most_lines` lines that fit `width`, ending in "…" when it is cut; words break only when they must."""
    lines: list[str] = []
    rest = " ".join(text.split())
    while rest and len(lines) < most_lines:
        taken = _fitting(rest, width, size)
        if len(lines) == most_lines - 1 and taken < len(rest):
            return [*lines, _cut(rest, width, size)]
        lines.append(rest[:taken].rstrip())
        rest = rest[taken:].lstrip()
    return lines


def _fitting(text: str, width: float, size: float) -> int:
    end = len(text)
    while end > 1 and text_width(text[:end], size) > width:
        end -= 1
    if end == len(text):
        return end
    pause = text.rfind("・", 0, end) + 1
    if pause > end // 2:
        return pause
    space = text.rfind(" ", 0, end + 1)
    # Japanese has no spaces to break at: only a Latin word is kept whole.
    return space if space > 0 and text[end - 1].isascii() and text[end].isascii() else end


def _cut(text: str, width: float, size: float) -> str:
    while text and text_width(text + "…", size) > width:
        text = text[:-1]
    return text.rstrip() + "…"


@dataclass(frozen=True, slots=True)
class _Node:
    step_id: str
    kind: str
    colour: str
    name: str
    note: str
    count: str
    width: int

    @property
    def count_width(self) -> float:
        return text_width(self.count, NAME_SIZE) + 8 if self.count else 0.0

    @property
    def name_lines(self) -> list[str]:
        return wrapped(self.name, self.width - EDGE_WIDTH - 2 * PADDING_X - self.count_width, NAME_SIZE) or [""]

    @property
    def note_lines(self) -> list[str]:
        return wrapped(self.note, self.width - EDGE_WIDTH - 2 * PADDING_X, NOTE_SIZE)

    @property
    def height(self) -> int:
        return 2 * PADDING_Y + NAME_LINE * len(self.name_lines) + NOTE_LINE * len(self.note_lines)


@dataclass(slots=True)
class _Picture:
    program: Program
    lang: str
    counts: Counts | None
    parts: list[str] = field(default_factory=list)
    boxes: dict[str, tuple[float, float]] = field(default_factory=dict)  # step id -> x of its right side, y of its middle

    def draw(self) -> str:
        steps = self.program.definition.steps
        width = self.width_of(steps, 0) + 2 * MARGIN
        bottom = self.sequence(steps, width / 2, MARGIN, 0)
        bottom = self.goal(width / 2, bottom, _falls_through(steps)) + MARGIN
        jumps = self.jumps(width - MARGIN)
        width += LANE * len(jumps)
        name = escape(self.program.definition.name.text(self.lang))
        about = escape(WORDS["about"][self.lang].format(count=len(self.program.steps)))
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="journey-picture" role="img" aria-label="{name}" lang="{self.lang}"'
            f' width="{width:g}" height="{bottom:g}" viewBox="0 0 {width:g} {bottom:g}" font-family="{FONT}">'
            f"<title>{name}</title><desc>{about}</desc>{''.join([*jumps, *self.parts])}</svg>"
        )

    def width_of(self, steps: tuple[Step, ...], depth: int) -> int:
        return max([_node_width(depth), *(self.split_width(step, depth) for step in steps)])

    def split_width(self, step: Step, depth: int) -> int:
        arms = _arms(step, self.lang)
        return sum(self.width_of(arm.steps, depth + 1) for arm in arms) + GAP * (len(arms) - 1) if arms else 0

    def sequence(self, steps: tuple[Step, ...], x: float, y: float, depth: int) -> float:
        for number, step in enumerate(steps):
            if number and _falls_through(steps[number - 1 : number]):
                self.link(x, y, step.id)
            y = self.step(step, x, y + (LINK_HEIGHT if number else 0), depth)
        return y

    def step(self, step: Step, x: float, y: float, depth: int) -> float:
        settled = self.program.steps[step.id]
        name, note = describe_step(settled, self.lang, self.program.definition)
        count = self.counts.get(step.id) if self.counts is not None else None
        shown = "" if count is None else f"{count.here if step.kind in WAITING_KINDS else count.arrived:,}"
        kind = KINDS[step.kind]
        node = _Node(step.id, step.kind, kind.colour, name, (count.note if count else "") or note, shown, _node_width(depth))
        bottom = self.node(node, x, y)
        self.boxes[step.id] = (x + node.width / 2, (y + bottom) / 2)
        arms = _arms(step, self.lang)
        return self.split(arms, x, bottom, depth) if arms else bottom

    def split(self, arms: tuple[Path, ...], x: float, y: float, depth: int) -> float:
        widths = [self.width_of(arm.steps, depth + 1) for arm in arms]
        left = x - (sum(widths) + GAP * (len(arms) - 1)) / 2
        ends: list[tuple[float, float]] = []
        lowest = y
        for arm, width in zip(arms, widths, strict=True):
            middle, left = left + width / 2, left + width + GAP
            bottom = self.arm(arm, x, y, middle, width, depth + 1)
            lowest = max(lowest, bottom)
            if _falls_through(arm.steps):
                ends.append((middle, bottom))
        return self.join(ends, x, lowest)

    def arm(self, arm: Path, x: float, y: float, middle: float, width: int, depth: int) -> float:
        top = y + FORK_HEIGHT
        self.line(f"M{x:g} {y:g}V{y + FORK_HEIGHT / 2:g}H{middle:g}V{top:g}")
        label = arm.words(self.lang) + (f" {arm.share * 100:g}%" if arm.share is not None else "")
        shown = wrapped(label, width - 8, NOTE_SIZE, 1)
        full = f"<title>{escape(label)}</title>"
        self.parts.append(
            f'<text class="journey-arm" x="{middle:g}" y="{top + NOTE_SIZE:g}" text-anchor="middle" font-size="{NOTE_SIZE}"'
            f' fill="{INK_SOFT}">{escape("".join(shown))}{full}</text>'
        )
        if arm.steps:
            return self.sequence(arm.steps, middle, top + ARM_LABEL_HEIGHT, depth)
        straight_on = _Node("", "next", LINE, WORDS["next"][self.lang], "", "", _node_width(depth))
        return self.node(straight_on, middle, top + ARM_LABEL_HEIGHT)

    def join(self, ends: list[tuple[float, float]], x: float, lowest: float) -> float:
        joined = lowest + JOIN_HEIGHT
        for middle, bottom in ends:
            self.line(f"M{middle:g} {bottom:g}V{joined:g}H{x:g}")
        return joined if ends else lowest

    def node(self, node: _Node, x: float, y: float) -> float:
        left, height = x - node.width / 2, node.height
        start = left + EDGE_WIDTH + PADDING_X
        texts = [
            f'<text class="journey-name" x="{start:g}" y="{y + PADDING_Y + NAME_SIZE + NAME_LINE * number:g}" font-size="{NAME_SIZE}"'
            f' font-weight="600" fill="{INK}">{escape(line)}</text>'
            for number, line in enumerate(node.name_lines)
        ]
        notes_top = y + PADDING_Y + NAME_LINE * len(node.name_lines) + NOTE_SIZE
        texts += [
            f'<text class="journey-note" x="{start:g}" y="{notes_top + NOTE_LINE * number:g}" font-size="{NOTE_SIZE}"'
            f' fill="{INK_SOFT}">{escape(line)}</text>'
            for number, line in enumerate(node.note_lines)
        ]
        if node.count:
            texts.append(
                f'<text class="journey-count" x="{left + node.width - PADDING_X:g}" y="{y + PADDING_Y + NAME_SIZE:g}" text-anchor="end"'
                f' font-size="{NAME_SIZE}" font-weight="600" fill="{INK}">{node.count}</text>'
            )
        step = f' data-step="{escape(node.step_id)}"' if node.step_id else ""
        self.parts.append(
            f'<g class="journey-node journey-node-{node.kind}"{step}><title>{escape(self.spoken(node))}</title>'
            f'<rect class="journey-box" x="{left + 0.5:g}" y="{y + 0.5:g}" width="{node.width - 1}" height="{height - 1}" rx="10"'
            f' fill="{PAPER}" stroke="{LINE}"/>'
            f'<path class="journey-edge" d="{_edge(left, y, height)}" fill="{node.colour}"/>{"".join(texts)}</g>'
        )
        return y + height

    def spoken(self, node: _Node) -> str:
        people = WORDS["people"][self.lang].format(count=node.count) if node.count else ""
        return " — ".join(part for part in (node.name, node.note, people) if part)

    def link(self, x: float, y: float, to: str) -> None:
        share = _share(self.program, self.counts, to)
        width = PLAIN_LINK if share is None else max(NARROWEST_LINK, WIDEST_LINK * share)
        colour = LINE if share is None else LINK
        self.parts.append(
            f'<rect class="journey-link" x="{x - width / 2:g}" y="{y:g}" width="{width:g}" height="{LINK_HEIGHT}" fill="{colour}"/>'
        )

    def line(self, path: str) -> None:
        self.parts.append(f'<path class="journey-line" d="{path}" fill="none" stroke="{LINE}" stroke-width="2"/>')

    def jumps(self, right: float) -> list[str]:
        """Return the dashed lines from steps to the steps that they name, each in its own lane beside the journey, behind the nodes."""
        named = [(step.id, target) for step in self.program.steps.values() for _, target in step.targets() if target in self.boxes]
        lines = []
        for number, (step_id, target) in enumerate(named):
            (start_x, start_y), (end_x, end_y) = self.boxes[step_id], self.boxes[target]
            lane = right + LANE * (number + 1)
            lines.append(
                f'<path class="journey-jump" d="M{start_x:g} {start_y:g}H{lane:g}V{end_y:g}H{end_x + 1:g}" fill="none" stroke="{INK_SOFT}"'
                f' stroke-width="1.5" stroke-dasharray="4 4"/>'
                f'<path class="journey-arrow" d="M{end_x + 1:g} {end_y:g}l{ARROW * 1.6:g} {-ARROW}v{2 * ARROW}z" fill="{INK_SOFT}"/>'
            )
        return lines

    def goal(self, x: float, y: float, is_reached: bool) -> float:
        goal = self.program.definition.goal
        if goal is None:
            return y
        if is_reached:
            self.link(x, y, GOAL)
        name = goal.name.text(self.lang) if goal.name else str(goal.when)
        note = WORDS["target"][self.lang].format(target=goal.target) if goal.target else ""
        count = self.counts.get(GOAL) if self.counts is not None else None
        title = f"{WORDS['goal'][self.lang]}{'：' if self.lang == 'ja' else ': '}{name}"
        shown = "" if count is None else f"{count.arrived:,}"
        node = _Node("", GOAL, GOAL_COLOUR, title, (count.note if count else "") or note, shown, NODE_WIDTH)
        return self.node(node, x, y + LINK_HEIGHT)


def _node_width(depth: int) -> int:
    return NODE_WIDTH if depth == 0 else ARM_WIDTH


def _edge(left: float, top: float, height: int) -> str:
    inner = height - 20
    return f"M{left + EDGE_WIDTH:g} {top:g}a5 10 0 0 0 -5 10v{inner}a5 10 0 0 0 5 10z"


def _arms(step: Step, lang: str) -> tuple[Path, ...]:
    """Return the arms to draw: those of the split, and one for contacts that none of them takes."""
    paths = step.paths()
    if not paths or None not in step.ways(None) or any(not path.steps for path in paths):
        return paths
    return (*paths, Path(WORDS["none"][lang], ()))


def _falls_through(steps: tuple[Step, ...]) -> bool:
    """Return whether contacts go on behind the last of `steps`."""
    if not steps:
        return True
    last = steps[-1]
    return None in last.ways(None) or any(path.steps and _falls_through(path.steps) for path in last.paths())
