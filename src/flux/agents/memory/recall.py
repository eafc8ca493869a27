"""How memories are found by words: the words of a text, and which memories fit a question best.

Both databases, and the memory of one process, index the same words and rank alike.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from flux.store.database import Scope, Steps
from flux.store.memories import FOUND, Memory, Word, by_id, holding, how

#: Letters of a word that count, words of a question that are looked for, words of a memory that are indexed.
MAX_WORD = 64
MAX_ASKED = 12
MAX_INDEXED = 20_000
#: From so many letters on, a word of a question also finds longer ones that begin with it; unless so many
#: memories hold the word itself that looking for more would only take time.
BEGINS_FROM = 4
ENOUGH = 50

_ASCII = re.compile(r"[a-z0-9]+")
#: Writing that puts no space between words: each of its characters counts as one.
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
_ACCENTS = re.compile(r"[\u0300-\u036f]")


def words_of(text: str) -> list[str]:
    """The different words of a text in their order, in small letters and without accents."""
    small = text.casefold()
    if small.isascii():
        found: Iterable[str] = _ASCII.findall(small)
    else:
        plain = unicodedata.normalize("NFKD", small).casefold()  # letters in fancy dress are small only now
        bare = unicodedata.normalize("NFKC", _ACCENTS.sub("", unicodedata.normalize("NFKD", plain)))
        spaced = "".join(char if _in_word(char) else " " for char in bare)
        found = _UNSPACED.sub(lambda match: f" {match[0]} ", spaced).split()
    return list(dict.fromkeys(word[:MAX_WORD] for word in found))


def indexed(key: str, value: str) -> list[str]:
    """The words by which a memory is found; `value` is JSON text."""
    texts = _texts(msgspec.json.decode(value))
    return words_of(" ".join([key, *texts]))[:MAX_INDEXED]


def asked(question: str) -> list[str]:
    """The words of a question to look for: the longest, as they tell most."""
    return sorted(words_of(question), key=len, reverse=True)[:MAX_ASKED]


def search(scope: Scope, area: str, question: str, *, postgres: bool) -> Steps[list[Memory]]:
    """The memories that fit a question best, best first, at most `FOUND`."""
    words: list[Word] = []
    hits: dict[str, list[int]] = {}
    kind = yield from how(postgres)
    for text in asked(question):
        word = Word(text)
        ids = yield from holding(scope, area, kind, [word])
        if begins(text, len(ids)):
            word = Word(text, begins=True)
            ids = yield from holding(scope, area, kind, [word])
        words.append(word)
        hits[text] = ids
    whole = (yield from holding(scope, area, kind, words)) if len(words) > 1 else []
    return (yield from by_id(scope, area, ranked(hits, whole)))


def begins(word: str, held: int) -> bool:
    """Whether a word that so many memories hold is also to find longer ones."""
    return len(word) >= BEGINS_FROM and held < ENOUGH


def ranked(hits: Mapping[str, Sequence[int]], whole: Sequence[int]) -> list[int]:
    """The ids that fit best: those that hold all words, then by how rare the words are that they hold.

    `hits` holds the ids of each word and `whole` those with all words, newest first: of equals the newer wins.
    """
    scores: dict[int, float] = {}
    for ids in (*hits.values(), whole):
        weight = 1 / math.log(2 + len(ids))
        for id in ids:
            scores[id] = scores.get(id, 0.0) + weight
    for id in whole:
        scores[id] += len(hits) + 2
    return sorted(scores, key=lambda id: (scores[id], id), reverse=True)[:FOUND]


def _in_word(char: str) -> bool:
    return char.isalnum() or unicodedata.category(char)[0] == "M"


def _texts(value: object) -> list[str]:
    """Everything in a JSON value that can be searched for."""
    match value:
        case str():
            return [value]
        case dict():
            return [text for key, item in value.items() for text in (key, *_texts(item))]
        case list():
            return [text for item in value for text in _texts(item)]
        case None:
            return []
    return [str(value)]
