"""Markdown as quiet terminal text: no boxes, no backgrounds, nothing hidden."""

from __future__ import annotations

from collections.abc import Iterator

from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich import box, markdown
from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.rule import Rule
from rich.segment import Segment
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from flux.surfaces.visible import visible

#: Without raw HTML and reference definitions: both would vanish from what the reader sees.
_PARSER = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"]).disable("reference")

HIGHLIGHTED = 20_000
"""Characters of a code block up to which it is highlighted."""


class _Heading(markdown.Heading):
    LEVEL_ALIGN = dict.fromkeys(markdown.Heading.LEVEL_ALIGN, "left")


class _Code(markdown.CodeBlock):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        code = str(self.text).rstrip()
        lexer = self.lexer_name if len(code) <= HIGHLIGHTED else "text"
        syntax = Syntax(code, lexer, theme="ansi_dark", background_color="default", word_wrap=True)
        yield Padding(syntax, (0, 0, 0, 2))


class _Quote(markdown.BlockQuote):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from _marked(console, options, self.elements, Segment("│ ", console.get_style("dim")))


class _List(markdown.ListElement):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        start = 1 if self.list_start is None else self.list_start
        ordered = self.list_type == "ordered_list_open"
        for number, item in enumerate(self.items, start):
            marker = f" {number}. " if ordered else " • "
            yield from _marked(console, options, item.elements, Segment(marker), hanging=True)


class _Rule(markdown.HorizontalRule):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Rule(style="dim")


class _Table(markdown.TableElement):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, border_style="dim")
        for cell in self.header.row.cells if self.header and self.header.row else ():
            table.add_column(Text.assemble((cell.content.plain, "bold")), justify=cell.justify, overflow="fold")
        for row in self.body.rows if self.body else ():
            table.add_row(*(cell.content for cell in row.cells))
        yield table


class Markdown(markdown.Markdown):
    """A renderable of Markdown text."""

    elements = markdown.Markdown.elements | {
        "heading_open": _Heading,
        "fence": _Code,
        "code_block": _Code,
        "blockquote_open": _Quote,
        "bullet_list_open": _List,
        "ordered_list_open": _List,
        "hr": _Rule,
        "table_open": _Table,
    }

    def __init__(self, text: str) -> None:
        super().__init__("", hyperlinks=False)
        self.parsed = _PARSER.parse(text)
        for token in self.parsed:
            if token.children:
                token.children = list(_plain_links(token.children))
            for part in (token, *(token.children or ())):
                _clean(part)


def _clean(token: Token) -> None:
    """Entities and escapes in addresses may stand for characters that were not in the text."""
    token.content = visible(token.content)
    token.attrs = {name: visible(str(value)) for name, value in token.attrs.items()}


def _plain_links(tokens: list[Token]) -> Iterator[Token]:
    """Without targets that only repeat their text; images become their description and address."""
    for index, token in enumerate(tokens):
        if token.type == "image":
            yield Token("text", "", 0, content=f"[image: {token.content}] ({token.attrs.get('src', '')})")
        elif token.type == "link_open" and _names_itself(tokens, index):
            tokens[index + 2].hidden = True
        elif not (token.type == "link_close" and token.hidden):
            yield token


def _names_itself(tokens: list[Token], index: int) -> bool:
    closes = len(tokens) > index + 2 and tokens[index + 2].type == "link_close"
    return closes and tokens[index + 1].content == tokens[index].attrs.get("href")


def _marked(
    console: Console, options: ConsoleOptions, content: object, marker: Segment, *, hanging: bool = False
) -> Iterator[Segment]:
    """Lines behind a marker; hanging: the marker stands in front of the first line only."""
    width = marker.cell_length
    lines = console.render_lines(content, options.update(width=max(1, options.max_width - width)))  # type: ignore[arg-type]
    for index, line in enumerate(lines):
        yield Segment(" " * width) if hanging and index else marker
        yield from line
        yield Segment.line()
