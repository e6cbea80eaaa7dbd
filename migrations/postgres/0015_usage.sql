-- What was used, by hour: added to in the transactions that write ledger and audit log, so that reading it costs
-- what hours there are, however long the history. `hour` is when it begins, seconds since the epoch: whole hours
-- of the tenant's time zone. Tokens are those of the ledger, of the hour of admission; all else is of the audit
-- log, of the hour of arrival. "" stands for what is not known: a caller without a key, no backend yet.
CREATE TABLE usage_hours (
    hour BIGINT NOT NULL,
    tenant_id TEXT NOT NULL,
    key_id TEXT NOT NULL,
    model TEXT NOT NULL,
    backend TEXT NOT NULL,
    requests BIGINT NOT NULL,
    served BIGINT NOT NULL,
    client_left BIGINT NOT NULL,
    backend_failed BIGINT NOT NULL,
    cut BIGINT NOT NULL,
    refused_auth BIGINT NOT NULL,
    refused_forbidden BIGINT NOT NULL,
    refused_invalid BIGINT NOT NULL,
    refused_limit BIGINT NOT NULL,
    refused_budget BIGINT NOT NULL,
    refused_unavailable BIGINT NOT NULL,
    tokens BIGINT NOT NULL,
    prompt_tokens BIGINT NOT NULL,
    completion_tokens BIGINT NOT NULL,
    load_us BIGINT NOT NULL,
    prompt_us BIGINT NOT NULL,
    generation_us BIGINT NOT NULL,
    model_loads BIGINT NOT NULL,
    PRIMARY KEY (hour, tenant_id, key_id, model, backend)
) WITH (fillfactor = 70);

-- Where it was served, and which hour it counts in: 0 for entries from before, which count in hours of UTC, and
-- -1 for what is not counted: requests that run, and entries of gateways of an older version, which know no usage
-- and write on until the last of them is replaced. storage.uncounted counts these later.
ALTER TABLE ledger ADD COLUMN backend TEXT NOT NULL DEFAULT '';

ALTER TABLE ledger ADD COLUMN usage_hour BIGINT NOT NULL DEFAULT 0;

ALTER TABLE ledger ALTER COLUMN usage_hour SET DEFAULT -1;

UPDATE ledger SET usage_hour = -1 WHERE evidence = 'intent';

-- Nothing is in it for long.
CREATE INDEX ledger_uncounted ON ledger (tenant_id) WHERE usage_hour = -1 AND evidence <> 'intent';

-- When a row came in, by this database's clock: what follows the log goes by it. 0 for rows from before, NULL for
-- what is not counted yet: see above.
ALTER TABLE audit ADD COLUMN recorded_at DOUBLE PRECISION DEFAULT 0;

ALTER TABLE audit ALTER COLUMN recorded_at DROP DEFAULT;

CREATE INDEX audit_by_record ON audit (recorded_at);

-- What is there already: as rules.usage counts it.
INSERT INTO usage_hours
SELECT hour, tenant_id, key_id, model, backend,
    CAST(sum(requests) AS BIGINT),
    CAST(sum(served) AS BIGINT),
    CAST(sum(client_left) AS BIGINT),
    CAST(sum(backend_failed) AS BIGINT),
    CAST(sum(cut) AS BIGINT),
    CAST(sum(refused_auth) AS BIGINT),
    CAST(sum(refused_forbidden) AS BIGINT),
    CAST(sum(refused_invalid) AS BIGINT),
    CAST(sum(refused_limit) AS BIGINT),
    CAST(sum(refused_budget) AS BIGINT),
    CAST(sum(refused_unavailable) AS BIGINT),
    CAST(sum(tokens) AS BIGINT),
    CAST(sum(prompt_tokens) AS BIGINT),
    CAST(sum(completion_tokens) AS BIGINT),
    CAST(sum(load_us) AS BIGINT),
    CAST(sum(prompt_us) AS BIGINT),
    CAST(sum(generation_us) AS BIGINT),
    CAST(sum(model_loads) AS BIGINT)
FROM (
    SELECT received_at_us / 3600000000 * 3600 AS hour,
            coalesce(tenant_id, '') AS tenant_id, coalesce(key_id, '') AS key_id,
            CASE WHEN backend IS NOT NULL OR outcome IN ('served', 'cut') OR status = 429
                THEN coalesce(model, '') ELSE '' END AS model,
            coalesce(backend, '') AS backend,
            CAST(sum(1) AS BIGINT) AS requests,
            CAST(sum(CASE WHEN outcome = 'served' THEN 1 ELSE 0 END) AS BIGINT) AS served,
            CAST(sum(CASE WHEN outcome = 'client_left' THEN 1 ELSE 0 END) AS BIGINT) AS client_left,
            CAST(sum(CASE WHEN outcome = 'backend_failed' THEN 1 ELSE 0 END) AS BIGINT) AS backend_failed,
            CAST(sum(CASE WHEN outcome = 'cut' THEN 1 ELSE 0 END) AS BIGINT) AS cut,
            CAST(sum(CASE WHEN outcome = 'refused' AND status = 401 THEN 1 ELSE 0 END) AS BIGINT) AS refused_auth,
            CAST(sum(CASE WHEN outcome = 'refused' AND status = 403 THEN 1 ELSE 0 END) AS BIGINT) AS refused_forbidden,
            CAST(sum(CASE WHEN outcome = 'refused' AND status NOT IN (401, 403, 429) AND status < 500 THEN 1 ELSE 0 END) AS BIGINT) AS refused_invalid,
            CAST(sum(CASE WHEN outcome = 'refused' AND status = 429 AND coalesce(error_code, '') <> 'insufficient_quota' THEN 1 ELSE 0 END) AS BIGINT) AS refused_limit,
            CAST(sum(CASE WHEN outcome = 'refused' AND status = 429 AND error_code = 'insufficient_quota' THEN 1 ELSE 0 END) AS BIGINT) AS refused_budget,
            CAST(sum(CASE WHEN outcome = 'refused' AND status >= 500 THEN 1 ELSE 0 END) AS BIGINT) AS refused_unavailable,
            0 AS tokens,
            0 AS prompt_tokens,
            0 AS completion_tokens,
            CAST(sum(round(coalesce(load_ms, 0) * 1000)) AS BIGINT) AS load_us,
            CAST(sum(round(coalesce(prompt_ms, 0) * 1000)) AS BIGINT) AS prompt_us,
            CAST(sum(round(coalesce(generation_ms, 0) * 1000)) AS BIGINT) AS generation_us,
            CAST(sum(CASE WHEN load_ms >= 500 THEN 1 ELSE 0 END) AS BIGINT) AS model_loads
    FROM audit GROUP BY 1, 2, 3, 4, 5
    UNION ALL
    SELECT CAST(floor(admitted_at / 3600) AS BIGINT) * 3600 AS hour, tenant_id, key_id, model, '' AS backend,
            0 AS requests,
            0 AS served,
            0 AS client_left,
            0 AS backend_failed,
            0 AS cut,
            0 AS refused_auth,
            0 AS refused_forbidden,
            0 AS refused_invalid,
            0 AS refused_limit,
            0 AS refused_budget,
            0 AS refused_unavailable,
            CAST(sum(tokens) AS BIGINT) AS tokens,
            CAST(sum(prompt_tokens) AS BIGINT) AS prompt_tokens,
            CAST(sum(completion_tokens) AS BIGINT) AS completion_tokens,
            0 AS load_us,
            0 AS prompt_us,
            0 AS generation_us,
            0 AS model_loads
    FROM ledger WHERE evidence <> 'intent' GROUP BY 1, 2, 3, 4, 5
) AS counted
GROUP BY hour, tenant_id, key_id, model, backend;
