"""Template and data to rendered message: blocks, defaults, greetings, footers, links, previews. Knows no contact, no table, no channel."""

from distmark.personalisation.blocks import plain_text, resolve_blocks, sanitise_block
from distmark.personalisation.footer import LegalFooter, legal_footer
from distmark.personalisation.greeting import greeting_for
from distmark.personalisation.model import (
    MAX_HTML_BYTES,
    BlockKind,
    BlockValue,
    CompiledMessage,
    Layer,
    RenderContext,
    RenderedMessage,
    RenderError,
    TemplateRefused,
)
from distmark.personalisation.service import compile_message, render, template_files
from distmark.personalisation.sms import SmsEncoding, SmsParts, sms_parts

__all__ = [
    "MAX_HTML_BYTES",
    "BlockKind",
    "BlockValue",
    "CompiledMessage",
    "Layer",
    "LegalFooter",
    "RenderContext",
    "RenderError",
    "RenderedMessage",
    "SmsEncoding",
    "SmsParts",
    "TemplateRefused",
    "compile_message",
    "greeting_for",
    "legal_footer",
    "plain_text",
    "render",
    "resolve_blocks",
    "sanitise_block",
    "sms_parts",
    "template_files",
]
