-- make_audit_days() runs with the rights of whoever migrated, and could be made to run with them what the role that
-- serves made up: the place of temporary tables came first on its path. Now it comes last. Nor does anything hang any
-- more on what that role can write: until when audit_before reaches is read from the table itself.
--
-- Default privileges of an operator's own give roles rights on each table that is made. On what a part of the log has in
-- it only the rights on the log as a whole count: others than the owner may read a part, and do nothing else to it.
CREATE FUNCTION audit_before_until() RETURNS BIGINT LANGUAGE sql STABLE
RETURN (
    SELECT CAST(CAST(CAST('x' || substring(
        pg_get_expr(relpartbound, oid) FROM 'TO [(]''req_([0-9a-f]{12})''[)]'
    ) AS BIT(48)) AS BIGINT) / 86400000 AS BIGINT)
    FROM pg_class WHERE oid = to_regclass('audit_before')
);

CREATE FUNCTION guard_audit_part(part REGCLASS) RETURNS VOID LANGUAGE plpgsql AS $$
DECLARE
    whose OID;
BEGIN
    FOR whose IN
        SELECT DISTINCT grantee FROM pg_class, aclexplode(relacl) WHERE oid = part AND grantee <> relowner
    LOOP
        EXECUTE format(
            'REVOKE INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER ON %s FROM %s',
            part, CASE whose WHEN 0 THEN 'PUBLIC' ELSE CAST(CAST(whose AS REGROLE) AS TEXT) END
        );
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION make_audit_days() RETURNS BIGINT LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT SET lock_timeout = '2s' AS $$
DECLARE
    today BIGINT := floor(extract(epoch FROM clock_timestamp()) / 86400);
    whole BIGINT := coalesce(audit_before_until(), 0);
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
        PERFORM guard_audit_part(to_regclass(audit_table_of(missing)));
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

DO $$
DECLARE
    place NAME := (SELECT nspname FROM pg_class JOIN pg_namespace AS n ON n.oid = relnamespace
        WHERE pg_class.oid = CAST('audit' AS REGCLASS));
    part REGCLASS;
BEGIN
    EXECUTE format('ALTER FUNCTION make_audit_days() SET search_path = %I, pg_temp', place);
    FOR part IN SELECT inhrelid FROM pg_inherits WHERE inhparent = CAST('audit' AS REGCLASS) LOOP
        PERFORM guard_audit_part(part);
    END LOOP;
END
$$;

DELETE FROM meta WHERE name = 'audit_before_until';
