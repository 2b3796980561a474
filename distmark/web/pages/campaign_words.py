"""The brand's words in a campaign: its texts of the journey's blocks in every language. Partners may change them for their members."""

from dataclasses import dataclass

from fastapi import APIRouter
from fastapi.responses import Response
from starlette.datastructures import FormData

from distmark.campaigns import service as campaigns
from distmark.campaigns.service import editable_blocks
from distmark.errors import InvalidInput, Refused
from distmark.partners.model import Permission
from distmark.web import errors
from distmark.web.forms import posted_form
from distmark.web.i18n import N_
from distmark.web.ids import Id
from distmark.web.pages.campaigns import CampaignContext, campaign_context
from distmark.web.permissions import needs
from distmark.web.status_text import step_name
from distmark.web.visit import Visit

router = APIRouter()
FIELD = "block."


@dataclass(frozen=True, slots=True)
class BlockField:
    """One block in one language: the brand's text, the journey's own, and the messages that hold it."""

    field: str
    label: str
    hint: str
    kind: str
    longest: int
    value: str
    default: str
    messages: str
    is_open: bool  # whether partners may change it for their members


@router.get("/campaigns/{campaign_id}/brand-words")
def brand_words(campaign_id: Id, visit: Visit = needs(Permission.publish_campaigns)) -> Response:
    """Show the brand's texts of the blocks beside the journey's own, in every language of the journey."""
    return _page(visit, campaign_id, {})


@router.post("/campaigns/{campaign_id}/brand-words")
def store_brand_words(campaign_id: Id, visit: Visit = needs(Permission.publish_campaigns), form: FormData = posted_form) -> Response:
    """Store the brand's texts; an empty one, or one like the journey's own, is taken back."""
    written = {name: str(value).replace("\r\n", "\n").strip() for name, value in form.items() if name.startswith(FIELD)}
    try:
        with visit.writing() as session:
            context = campaign_context(session, visit, campaign_id)
            for lang, fields in _fields(visit, context, {}).items():
                texts = {each.field.split(".", 2)[2]: _changed(written[each.field], each) for each in fields if each.field in written}
                if texts:
                    campaigns.save_campaign_blocks(session, visit.viewer, campaign_id, lang, texts, visit.now)
    except (InvalidInput, Refused) as error:
        return _page(visit, campaign_id, written, wrong=errors.explain(error, visit.language), status=422)
    return visit.go(f"/campaigns/{campaign_id}/brand-words", N_("Saved. Members get these words unless their partner writes others."))


def _changed(text: str, block: BlockField) -> str | None:
    return None if text in ("", block.default.strip()) else text


def _page(visit: Visit, campaign_id: int, written: dict[str, str], *, wrong: str = "", status: int = 200) -> Response:
    with visit.reading() as session:
        context = campaign_context(session, visit, campaign_id)
        fields = _fields(visit, context, written)
    return visit.page("campaigns/brand_words.html", status=status, campaign=context.campaign, fields=fields, wrong=wrong)


def _fields(visit: Visit, context: CampaignContext, written: dict[str, str]) -> dict[str, list[BlockField]]:
    """Return the fields of the form by language, with the texts that were just `written`, else the stored ones."""
    if context.program is None:
        return {}
    definition, open_blocks = context.program.definition, editable_blocks(context.program)
    fields: dict[str, list[BlockField]] = {}
    for lang in definition.languages:
        stored = context.campaign.blocks.get(lang, {})
        for name, block in definition.blocks.items():
            field = f"{FIELD}{lang}.{name}"
            row = BlockField(
                field=field,
                label=block.label.text(visit.language),
                hint=block.hint.text(visit.language) if block.hint else "",
                kind=block.kind,
                longest=block.longest,
                value=written.get(field, stored.get(name, "")),
                default=block.default.text(lang),
                messages=_messages_with(visit, context, name),
                is_open=name in open_blocks,
            )
            fields.setdefault(lang, []).append(row)
    return fields


def _messages_with(visit: Visit, context: CampaignContext, block: str) -> str:
    """Return the names of the messages that let partners change the block."""
    separator = "、" if visit.language == "ja" else ", "
    return separator.join(step_name(send, visit.translator) for send in context.sends if block in send.editable)
