-- What was used, by hour: added to in the transactions that write ledger and audit log, so that reading it costs
-- what hours there are, however long the history. `hour` is when it begins, seconds since the epoch: whole hours
-- of the tenant's time zone. Tokens are those of the ledger, of the hour of admission; all else is of the audit
-- log, of the hour of arrival. "" stands for what is not known: a caller without a key, no backend yet.
CREATE TABLE usage_hours (
    hour INTEGER NOT NULL,
    tenant_id TEXT NOT NULL,
    key_id TEXT NOT NULL,
    model TEXT NOT NULL,
    backend TEXT NOT NULL,
    requests INTEGER NOT NULL,
    served INTEGER NOT NULL,
    client_left INTEGER NOT NULL,
    backend_failed INTEGER NOT NULL,
    cut INTEGER NOT NULL,
    refused_auth INTEGER NOT NULL,
    refused_forbidden INTEGER NOT NULL,
    refused_invalid INTEGER NOT NULL,
    refused_limit INTEGER NOT NULL,
    refused_budget INTEGER NOT NULL,
    refused_unavailable INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    load_us INTEGER NOT NULL,
    prompt_us INTEGER NOT NULL,
    generation_us INTEGER NOT NULL,
    model_loads INTEGER NOT NULL,
    PRIMARY KEY (hour, tenant_id, key_id, model, backend)
) WITHOUT ROWID, STRICT;

-- Where it was served, and which hour it counts in: 0 for entries from before, which count in hours of UTC, and
-- -1 for what is not counted: requests that run, and entries of gateways of an older version, which know no usage
-- and write on until the last of them is replaced. storage.uncounted counts these later.
ALTER TABLE ledger ADD COLUMN backend TEXT NOT NULL DEFAULT '';

ALTER TABLE ledger ADD COLUMN usage_hour INTEGER NOT NULL DEFAULT -1;

UPDATE ledger SET usage_hour = 0 WHERE evidence <> 'intent';

-- Nothing is in it for long.
CREATE INDEX ledger_uncounted ON ledger (tenant_id) WHERE usage_hour = -1 AND evidence <> 'intent';

-- When a row came in, by this database's clock: what follows the log goes by it. 0 for rows from before, NULL for
-- what is not counted yet: see above.
ALTER TABLE audit ADD COLUMN recorded_at REAL;

UPDATE audit SET recorded_at = 0;

CREATE INDEX audit_by_record ON audit (recorded_at);

-- What is there already: as rules.usage counts it.
INSERT INTO usage_hours
SELECT hour, tenant_id, key_id, model, backend,
    sum(requests),
    sum(served),
    sum(client_left),
    sum(backend_failed),
    sum(cut),
    sum(refused_auth),
    sum(refused_forbidden),
    sum(refused_invalid),
    sum(refused_limit),
    sum(refused_budget),
    sum(refused_unavailable),
    sum(tokens),
    sum(prompt_tokens),
    sum(completion_tokens),
    sum(load_us),
    sum(prompt_us),
    sum(generation_us),
    sum(model_loads)
FROM (
    SELECT received_at_us / 3600000000 * 3600 AS hour,
            coalesce(tenant_id, '') AS tenant_id, coalesce(key_id, '') AS key_id,
            CASE WHEN backend IS NOT NULL OR outcome IN ('served', 'cut') OR status = 429
                THEN coalesce(model, '') ELSE '' END AS model,
            coalesce(backend, '') AS backend,
            CAST(sum(1) AS INTEGER) AS requests,
            CAST(sum(CASE WHEN outcome = 'served' THEN 1 ELSE 0 END) AS INTEGER) AS served,
            CAST(sum(CASE WHEN outcome = 'client_left' THEN 1 ELSE 0 END) AS INTEGER) AS client_left,
            CAST(sum(CASE WHEN outcome = 'backend_failed' THEN 1 ELSE 0 END) AS INTEGER) AS backend_failed,
            CAST(sum(CASE WHEN outcome = 'cut' THEN 1 ELSE 0 END) AS INTEGER) AS cut,
            CAST(sum(CASE WHEN outcome = 'refused' AND status = 401 THEN 1 ELSE 0 END) AS INTEGER) AS refused_auth,
            CAST(sum(CASE WHEN outcome = 'refused' AND status = 403 THEN 1 ELSE 0 END) AS INTEGER) AS refused_forbidden,
            CAST(sum(CASE WHEN outcome = 'refused' AND status NOT IN (401, 403, 429) AND status < 500 THEN 1 ELSE 0 END) AS INTEGER) AS refused_invalid,
            CAST(sum(CASE WHEN outcome = 'refused' AND status = 429 AND coalesce(error_code, '') <> 'insufficient_quota' THEN 1 ELSE 0 END) AS INTEGER) AS refused_limit,
            CAST(sum(CASE WHEN outcome = 'refused' AND status = 429 AND error_code = 'insufficient_quota' THEN 1 ELSE 0 END) AS INTEGER) AS refused_budget,
            CAST(sum(CASE WHEN outcome = 'refused' AND status >= 500 THEN 1 ELSE 0 END) AS INTEGER) AS refused_unavailable,
            0 AS tokens,
            0 AS prompt_tokens,
            0 AS completion_tokens,
            CAST(sum(round(coalesce(load_ms, 0) * 1000)) AS INTEGER) AS load_us,
            CAST(sum(round(coalesce(prompt_ms, 0) * 1000)) AS INTEGER) AS prompt_us,
            CAST(sum(round(coalesce(generation_ms, 0) * 1000)) AS INTEGER) AS generation_us,
            CAST(sum(CASE WHEN load_ms >= 500 THEN 1 ELSE 0 END) AS INTEGER) AS model_loads
    FROM audit GROUP BY 1, 2, 3, 4, 5
    UNION ALL
    SELECT CAST(admitted_at AS INTEGER) / 3600 * 3600 AS hour, tenant_id, key_id, model, '' AS backend,
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
            CAST(sum(tokens) AS INTEGER) AS tokens,
            CAST(sum(prompt_tokens) AS INTEGER) AS prompt_tokens,
            CAST(sum(completion_tokens) AS INTEGER) AS completion_tokens,
            0 AS load_us,
            0 AS prompt_us,
            0 AS generation_us,
            0 AS model_loads
    FROM ledger WHERE evidence <> 'intent' GROUP BY 1, 2, 3, 4, 5
) AS counted
GROUP BY hour, tenant_id, key_id, model, backend;
