"""The tables of long-term memory: part of Flux's own schema, and the whole of a database of memories alone.

The tables are the same on both databases; what finds words in them is each database's own. `words` holds the
different words of a memory behind that of its place (see `flux.store.memories`), with single spaces between.
"""

from __future__ import annotations

from typing import Literal

#: How a database finds words; "plain" is SQLite without FTS5.
Kind = Literal["sqlite", "postgresql", "plain"]

TABLES = """
create table memories (
  {id}, tenant text not null, scope text not null, key text not null,
  value text not null, words text not null,
  created double precision not null, updated double precision not null
);
create unique index memories_key on memories (tenant, scope, key);
create index memories_newest on memories (tenant, scope, updated);

create table memory_writes (
  tenant text not null, call text not null, at double precision not null, primary key (tenant, call)
);
create index memory_writes_at on memory_writes (at)
"""

FTS5 = """
create virtual table memory_words using fts5(words, content='memories', content_rowid='id', detail=none,
  tokenize='ascii');
create trigger memories_added after insert on memories begin
  insert into memory_words (rowid, words) values (new.id, new.words); end;
create trigger memories_removed after delete on memories begin
  insert into memory_words (memory_words, rowid, words) values ('delete', old.id, old.words); end;
create trigger memories_changed after update on memories begin insert into memory_words
  (memory_words, rowid, words) values ('delete', old.id, old.words); insert into memory_words
  (rowid, words) values (new.id, new.words); end
"""

TSVECTOR = """
alter table memories add column lexemes tsvector
  generated always as (array_to_tsvector(string_to_array(words, ' '))) stored;
create index memories_words on memories using gin (lexemes)
"""

IDS: dict[Kind, str] = {
    "sqlite": "id integer primary key",
    "plain": "id integer primary key",
    "postgresql": "id bigint generated always as identity primary key",
}
SEARCH: dict[Kind, str] = {"sqlite": FTS5, "plain": "", "postgresql": TSVECTOR}


def memory_tables(kind: Kind) -> str:
    """Their statements, with ";" and the end of a line between them."""
    tables = TABLES.format(id=IDS[kind]).rstrip()
    return f"{tables};\n{SEARCH[kind]}"
