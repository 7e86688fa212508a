-- SPDX-License-Identifier: Apache-2.0

-- +goose Up
CREATE TABLE counters (
    namespace    text   NOT NULL,
    pod          text   NOT NULL,
    container    text   NOT NULL,
    cause        text   NOT NULL,
    oom_kills    bigint NOT NULL,
    terminations bigint NOT NULL,
    last_ns      bigint NOT NULL, -- the latest death, nanoseconds since 1970, UTC
    PRIMARY KEY (namespace, pod, container, cause)
);

-- +goose Down
DROP TABLE counters;
