"""Where a history is cut: how much of it is in use, what is summarised, and what is too long to stay. All pure."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from flux.agents.history.items import AnswerItem, Item, SummaryItem, UserItem
from flux.agents.history.transcript import Transcript
from flux.events import ToolDone
from flux.messages import FilePart, ImagePart, UserPart, text_of

CHARS_PER_TOKEN = 4
#: What an item costs besides its text, and an image, whatever is in it.
PER_ITEM = 4
PER_IMAGE = 1_500
#: Of a document, in base64.
FILE_BYTES_PER_CHAR = 5
#: A spilled result keeps this part of the tokens to keep.
SPILLED_PART = 4


class Compact(Struct, frozen=True):
    """Summarise everything up to a seq, and keep the results of these calls elsewhere.

    `shown` is how many characters of such a result the model still reads.
    """

    upto: int
    spill: tuple[str, ...] = ()
    shown: int = 0


def used_tokens(log: Transcript) -> int:
    """What the next prompt is likely to hold: the last call's tokens and an estimate of what came since."""
    since = 0
    for item in reversed(log.items):
        if isinstance(item, AnswerItem):
            since += sum(len(done.content) for done in item.results.values()) // CHARS_PER_TOKEN
            if log.prompt_tokens:
                break
        since += size(item) if not log.prompt_tokens or isinstance(item, UserItem) else 0
    return log.prompt_tokens + since


def cut(log: Transcript, keep: int, *, must: bool = True) -> Compact | None:
    """What to summarise so that about `keep` tokens stay as they are; None when there is nothing to gain.

    `must`: where that is all there is, everything but the newest item goes. Cuts fall between items, so a call is
    never parted from its result, and the newest item always stays. Where results make what stays more than twice as
    long, the longest are spilled.
    """
    items = log.items
    # To summarise nothing but the last summary would gain nothing.
    first = 1 if items and isinstance(items[0], SummaryItem) else 0
    at = _place(items, first, keep, must=must)
    upto = items[at].seq - 1 if at else items[0].seq if first else 0
    shown = keep * CHARS_PER_TOKEN // SPILLED_PART
    spill = _too_long(items[max(at, first) :], keep, shown)
    return Compact(upto, spill, shown if spill else 0) if at or spill else None


def _place(items: Sequence[Item], first: int, keep: int, *, must: bool) -> int:
    """The index of the first item that stays; 0 when none may go."""
    places = [index for index in range(first + 1, len(items)) if _apart(items, index)]
    crossing = _crossing(items, first, keep)
    if not places or (crossing is None and not must):
        return 0
    if crossing is None:
        return places[-1]
    return max((place for place in places if place <= crossing), default=places[0])


def _crossing(items: Sequence[Item], first: int, keep: int) -> int | None:
    """The item with which what stays is as long as `keep`; None when all of it is shorter."""
    kept = 0
    for index in range(len(items) - 1, first - 1, -1):
        kept += size(items[index])
        if kept >= keep:
            return index
    return None


def _apart(items: Sequence[Item], index: int) -> bool:
    """Whether a seq lies between an item and the one before: what an answer consumed has its seq."""
    return items[index].seq > items[index - 1].seq


def _too_long(items: Sequence[Item], keep: int, shown: int) -> tuple[str, ...]:
    """The calls whose results are spilled, in the order of the log."""
    total = sum(map(size, items))
    results = [done for item in items if isinstance(item, AnswerItem) for done in item.results.values()]
    spilled: set[str] = set()
    for done in sorted(results, key=_length, reverse=True):
        if total <= 2 * keep or _length(done) <= 2 * shown:
            break
        spilled.add(done.call)
        total -= (_length(done) - shown) // CHARS_PER_TOKEN
    return tuple(done.call for done in results if done.call in spilled)


def _length(done: ToolDone) -> int:
    return len(done.content)


def _chars(part: UserPart) -> int:
    """How long a part of a message is, as text of so many tokens would be."""
    match part:
        case ImagePart():
            return PER_IMAGE * CHARS_PER_TOKEN
        case FilePart():
            return max(PER_IMAGE * CHARS_PER_TOKEN, len(part.data) // FILE_BYTES_PER_CHAR)
    return len(part.text)


def size(item: Item) -> int:
    """A rough number of tokens."""
    match item:
        case UserItem():
            chars = sum(map(_chars, item.said.parts))
        case AnswerItem():
            chars = len(text_of(item.said.parts)) + sum(map(_length, item.results.values()))
            chars += sum(len(repr(call.args)) for call in item.said.calls)
        case SummaryItem():
            chars = len(item.text)
    return chars // CHARS_PER_TOKEN + PER_ITEM
