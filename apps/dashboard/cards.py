"""A model's card from Markdown to HTML. Cards of private models come from tenants, so nothing in them is trusted."""

from functools import lru_cache

from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt

_markdown = MarkdownIt("commonmark", {"html": False, "linkify": False}).enable("table").disable("image")


@lru_cache(maxsize=128)
def to_html(card: str) -> SafeString:
    """The card without its first heading, which the page shows itself.

    Raw HTML is shown as text, and a link that would run a script is no link.
    """
    tokens = _markdown.parse(card)
    if tokens and tokens[0].type == "heading_open" and tokens[0].tag == "h1":
        tokens = tokens[3:]
    for token in tokens:
        if token.type in {"heading_open", "heading_close"}:
            token.tag = f"h{min(int(token.tag[1]) + 1, 6)}"
        for link in token.children or []:
            if link.type == "link_open":
                link.attrSet("rel", "noopener nofollow")
    return mark_safe(_markdown.renderer.render(tokens, _markdown.options, {}))  # noqa: S308  # markdown-it escaped it, html is off
