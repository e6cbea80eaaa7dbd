-- The audit log in a table for each day (UTC), so that retention drops a day at once. A request's id begins with its
-- time in milliseconds and sorts by it: days are ranges of ids, and an id is unique over all of them, as before.
--
-- A row whose day has no table yet is kept in audit_other, and moved to its day when that is made: no row is ever
-- without a place. What was there before stays one table, audit_before, until retention has emptied it.
ALTER TABLE audit RENAME TO audit_before;

ALTER INDEX audit_pkey RENAME TO audit_before_pkey;

ALTER INDEX audit_by_time RENAME TO audit_before_by_time;

ALTER INDEX audit_by_tenant_and_time RENAME TO audit_before_by_tenant_and_time;

ALTER INDEX audit_by_record RENAME TO audit_before_by_record;

-- Ranges of ids are those of their bytes, whatever the language of the database.
ALTER TABLE audit_before ALTER COLUMN request_id TYPE TEXT COLLATE "C";

CREATE TABLE audit (LIKE audit_before INCLUDING DEFAULTS) PARTITION BY RANGE (request_id);

ALTER TABLE audit ADD PRIMARY KEY (request_id);

CREATE INDEX audit_by_time ON audit (received_at_us);

CREATE INDEX audit_by_tenant_and_time ON audit (tenant_id, received_at_us);

CREATE INDEX audit_by_record ON audit (recorded_at);

CREATE TABLE audit_other PARTITION OF audit DEFAULT;

-- The first id of a day; days are counted from 1970.
CREATE FUNCTION audit_id_of(day BIGINT) RETURNS TEXT LANGUAGE sql IMMUTABLE
RETURN 'req_' || lpad(to_hex(day * 86400000), 12, '0');

CREATE FUNCTION audit_table_of(day BIGINT) RETURNS TEXT LANGUAGE sql IMMUTABLE
RETURN 'audit_' || to_char(DATE '1970-01-01' + CAST(day AS INTEGER), 'YYYYMMDD');

-- Make the tables of the days to come, and of those that rows in audit_other are of. Gateways call it, with the
-- rights of whoever migrated: it can do no harm, so their own role needs none. Of two at once, one waits. Gives up
-- after two seconds where somebody reads the log for long: the next call makes up for it.
CREATE FUNCTION make_audit_days() RETURNS BIGINT LANGUAGE plpgsql SECURITY DEFINER
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

REVOKE ALL ON FUNCTION make_audit_days() FROM PUBLIC;

DO $$
DECLARE
    until BIGINT := floor(extract(epoch FROM clock_timestamp()) / 86400) + 1;
BEGIN
    IF NOT EXISTS (SELECT 1 FROM audit_before) THEN
        DROP TABLE audit_before;
        RETURN;
    END IF;
    -- Ids of another form, or of a clock that is ahead.
    WITH moved AS (DELETE FROM audit_before WHERE request_id >= audit_id_of(until) RETURNING *)
    INSERT INTO audit_other SELECT * FROM moved;
    EXECUTE format(
        'ALTER TABLE audit ATTACH PARTITION audit_before FOR VALUES FROM (MINVALUE) TO (%L)', audit_id_of(until)
    );
    INSERT INTO meta (name, value) VALUES ('audit_before_until', CAST(until AS TEXT));
END
$$;

SELECT make_audit_days();
