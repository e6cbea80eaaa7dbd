INSERT INTO meta (name, value)
SELECT 'audit_before_until', CAST(audit_before_until() AS TEXT) WHERE audit_before_until() IS NOT NULL
ON CONFLICT (name) DO UPDATE SET value = excluded.value;

CREATE OR REPLACE FUNCTION make_audit_days() RETURNS BIGINT LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT SET lock_timeout = '2s' AS $$
DECLARE
    today BIGINT := floor(extract(epoch FROM clock_timestamp()) / 86400);
    whole BIGINT := coalesce((SELECT CAST(value AS BIGINT) FROM meta WHERE name = 'audit_before_until'), 0);
    made BIGINT := 0;
    missing BIGINT;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('neuronetz-gateway audit days', 0));
    FOR missing IN
        SELECT day FROM (
            SELECT generate_series(today - 1, today + 7) AS day
            UNION
            SELECT CAST(CAST(CAST('x' || substr(request_id, 5, 12) AS BIT(48)) AS BIGINT) / 86400000 AS BIGINT)
            FROM audit_other WHERE request_id ~ '^req_0[0-9a-f]{11}'
        ) AS days
        WHERE day >= whole AND day < 100000 AND to_regclass(audit_table_of(day)) IS NULL
        ORDER BY day LIMIT 100
    LOOP
        -- Nobody adds to it between the move and the end of the day's making.
        LOCK TABLE audit_other IN ACCESS EXCLUSIVE MODE;
        EXECUTE format('CREATE TABLE %I (LIKE audit INCLUDING ALL)', audit_table_of(missing));
        EXECUTE format(
            'WITH moved AS (DELETE FROM audit_other WHERE request_id >= %L AND request_id < %L RETURNING *)
            INSERT INTO %I SELECT * FROM moved',
            audit_id_of(missing), audit_id_of(missing + 1), audit_table_of(missing)
        );
        EXECUTE format(
            'ALTER TABLE audit ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
            audit_table_of(missing), audit_id_of(missing), audit_id_of(missing + 1)
        );
        made := made + 1;
    END LOOP;
    RETURN made;
END
$$;

DROP FUNCTION guard_audit_part(REGCLASS);

DROP FUNCTION audit_before_until();
