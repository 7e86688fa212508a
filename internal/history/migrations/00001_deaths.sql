-- SPDX-License-Identifier: Apache-2.0
-- SQL that SQLite and PostgreSQL both take. A text that is not known is ''.

-- +goose Up
CREATE TABLE deaths (
    id             text   NOT NULL PRIMARY KEY,
    seq            bigint NOT NULL, -- rises with each insert and amendment
    revision       bigint NOT NULL,
    time_ns        bigint NOT NULL, -- nanoseconds since 1970, UTC
    node           text   NOT NULL,
    subject        text   NOT NULL,
    cause          text   NOT NULL,
    namespace      text   NOT NULL,
    pod            text   NOT NULL,
    pod_uid        text   NOT NULL,
    container_id   text   NOT NULL,
    container_name text   NOT NULL,
    unit           text   NOT NULL,
    cgroup         text   NOT NULL,
    words          text   NOT NULL, -- what q searches, in lower case
    body           text   NOT NULL  -- the death as JSON
);
CREATE UNIQUE INDEX deaths_seq ON deaths (seq);
CREATE UNIQUE INDEX deaths_time ON deaths (time_ns, id);
CREATE INDEX deaths_pod ON deaths (pod, time_ns, id);
CREATE INDEX deaths_container ON deaths (container_id, time_ns, id);

CREATE TABLE sequences (
    name  text   NOT NULL PRIMARY KEY,
    value bigint NOT NULL
);

CREATE TABLE state (
    name  text NOT NULL PRIMARY KEY,
    value text NOT NULL
);

-- +goose Down
DROP TABLE state;
DROP TABLE sequences;
DROP TABLE deaths;
