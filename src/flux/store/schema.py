"""The present schema, as both databases understand it. Older databases get here by `flux.store.migrations`."""

from __future__ import annotations

from typing import NamedTuple

from flux.store.memory_schema import Kind, memory_tables

#: The newest migration. Versions sort as text.
VERSION = "0001"

SCHEMA = """
create table executions (
  id text primary key, kind text not null, tenant text not null, owner text not null,
  agent text, agent_version integer, definition_digest text, instance text, name text, title text,
  workflow text, source_version integer,
  state text not null, outcome text, waiting_for text,
  head integer not null, epoch integer not null, run_id text, worker text, due double precision,
  pool text not null, requests text, avoid text, failures integer not null,
  parent text, driver text, root text not null,
  turns integer not null, usage text not null, last_error text, queued integer not null default 0,
  created double precision not null, updated double precision not null
);
create unique index executions_open on executions (tenant, agent, instance, name) where state <> 'ended';
create index executions_scheduled on executions (due) where state = 'scheduled';
create index executions_waiting on executions (due) where state = 'waiting' and due is not null;
create index executions_running on executions (worker) where state = 'running';
create index executions_listed on executions (tenant, created, id);
create index executions_parent on executions (parent) where parent is not null;
create index executions_root on executions (root) where driver is not null;
create index executions_ended on executions (updated) where state = 'ended';

create table events (
  execution_id text not null, seq integer not null, type text not null, run_id text,
  epoch integer not null, at double precision not null, body text not null, words text,
  primary key (execution_id, seq)
);
create index events_compactions on events (execution_id, seq) where type = 'compaction';

create table interrupts (
  id text primary key, execution_id text not null, root text not null, call text, kind text not null,
  payload text not null, digest text not null, state text not null, answer text, answered_by text,
  expires_at double precision, created double precision not null
);
create index interrupts_open on interrupts (execution_id) where state = 'open';
create index interrupts_root on interrupts (root) where state = 'open';

create table grants (
  execution_id text not null, tool text not null, by text not null, primary key (execution_id, tool)
);

create table workers (
  id text primary key, name text not null, host text not null, pid integer not null, version text not null,
  labels text not null, resources text not null, concurrency integer not null,
  state text not null, started double precision not null, seen double precision not null
);
create unique index workers_named on workers (name);

create table admissions (
  tenant text not null, principal text not null, key text not null, body_digest text not null,
  execution_id text not null, seq integer not null, at double precision not null,
  primary key (tenant, principal, key)
);

create table waits (
  execution_id text not null, target text not null, primary key (execution_id, target)
);
create index waits_target on waits (target);

create table agents (
  tenant text not null, name text not null, version integer not null, created double precision not null,
  updated double precision not null, primary key (tenant, name)
);

create table agent_versions (
  tenant text not null, name text not null, version integer not null, digest text not null,
  definition text not null, author text not null, created double precision not null,
  primary key (tenant, name, version)
);
create index agent_versions_digest on agent_versions (tenant, name, digest);

create table workflows (
  tenant text not null, namespace text not null, name text not null, version integer not null,
  created double precision not null, updated double precision not null, primary key (tenant, namespace, name)
);

create table workflow_versions (
  tenant text not null, namespace text not null, name text not null, version integer not null,
  digest text not null, source text not null, options text not null, author text not null,
  created double precision not null, primary key (tenant, namespace, name, version)
);

create table schedules (
  id text primary key, tenant text not null, owner text not null, name text not null, target text not null,
  workflow text, agent text, instance text, message text, input text not null, spec text not null,
  overlap text not null, missed text not null, state text not null, next_at double precision,
  last_at double precision, last_execution text, failures integer not null,
  created double precision not null, updated double precision not null
);
create unique index schedules_named on schedules (tenant, name);
create index schedules_due on schedules (next_at) where state = 'active';

create table schedule_runs (
  schedule_id text not null, due double precision not null, fired double precision not null, execution_id text,
  outcome text not null, missed integer not null, error text, primary key (schedule_id, due)
);

create table webhooks (
  id text primary key, tenant text not null, owner text not null, name text not null, url text not null,
  events text not null, agent text, created double precision not null
);
create unique index webhooks_named on webhooks (tenant, name);

create table webhook_deliveries (
  id text primary key, webhook_id text not null, tenant text not null, execution_id text not null, type text not null,
  body text not null, state text not null, attempts integer not null, due double precision not null,
  status integer, error text, created double precision not null, updated double precision not null
);
create index webhook_deliveries_due on webhook_deliveries (due) where state = 'pending';
create index webhook_deliveries_listed on webhook_deliveries (webhook_id, created, id);

create table task_cache (
  tenant text not null, key text not null, value text not null, created double precision not null,
  primary key (tenant, key)
);

create table secrets (
  tenant text not null, name text not null, sealed text not null, updated double precision not null,
  primary key (tenant, name)
);

create table configs (
  tenant text not null, name text not null, value text not null, updated double precision not null,
  primary key (tenant, name)
);

create table audit (
  id text primary key, tenant text not null, at double precision not null, principal text not null,
  action text not null, subject text not null, details text not null
);
create index audit_listed on audit (tenant, at, id);

create table spendings (
  tenant text not null, agent text not null, tokens bigint not null, cost double precision not null,
  primary key (tenant, agent)
);

create table reservations (
  tenant text not null, agent text not null, execution_id text not null, tokens bigint not null,
  cost double precision not null, primary key (tenant, agent, execution_id)
);

create table artifacts (
  id text primary key, tenant text not null, execution_id text not null, name text not null,
  media_type text not null, size integer not null, digest text not null, data bytea not null,
  created double precision not null
);
create index artifacts_listed on artifacts (execution_id, created, id);

create table artifact_links (
  execution_id text not null, artifact text not null, primary key (execution_id, artifact)
);
create index artifact_links_artifact on artifact_links (artifact);

create table files (
  place text not null, tenant text not null, path text not null, kind text not null, mode integer not null,
  data bytea not null, primary key (place, tenant, path)
);

create table principals (
  tenant text not null, subject text not null, kind text not null, name text, state text not null,
  created double precision not null, updated double precision not null, primary key (tenant, subject)
);

create table principal_roles (
  tenant text not null, subject text not null, role text not null, by text not null, at double precision not null,
  primary key (tenant, subject, role)
);

create table roles (
  tenant text not null, name text not null, permissions text not null, created double precision not null,
  updated double precision not null, primary key (tenant, name)
);

create table api_keys (
  digest text primary key, tenant text not null, subject text not null, name text not null, by text not null,
  expires_at double precision, created double precision not null
);
create unique index api_keys_named on api_keys (tenant, subject, name)
"""

#: What only processes that share a database need. Lost with a crash of the server, as it may be.
ON_POSTGRES = """
create unlogged table deltas (
  execution_id text not null, epoch integer not null, n integer not null, last integer not null,
  seq integer not null, type text not null, subject text not null, frames text not null,
  at double precision not null, primary key (execution_id, epoch, n)
)
"""


class Schema(NamedTuple):
    """What a database holds: the tables of `text` and those of memories; the table `versions` tells its version.

    `on_postgres`: tables that only processes which share a database need.
    """

    versions: str
    version: str
    text: str = ""
    on_postgres: str = ""

    def statements(self, kind: Kind) -> list[str]:
        """The schema, statement by statement."""
        own = self.text if kind != "postgresql" else f"{self.text.rstrip()};\n{self.on_postgres}"
        whole = f"{own.rstrip()};\n{memory_tables(kind)}"
        return [part.strip() for part in whole.split(";\n") if part.strip()]


FLUX = Schema("alembic_version", VERSION, SCHEMA, ON_POSTGRES)
#: A database for memories alone, beside Flux's own.
MEMORIES = Schema("flux_memory_version", "0001")
