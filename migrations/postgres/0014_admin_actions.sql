-- What operators did, written with what it changed, in the same transaction: who, when, to whom, what was and
-- what is (JSON). Never a key. Ids sort by time. Nothing here is ever changed or deleted.
CREATE TABLE admin_actions (
    id TEXT NOT NULL PRIMARY KEY,
    at DOUBLE PRECISION NOT NULL,
    os_user TEXT NOT NULL,
    host TEXT NOT NULL,
    action TEXT NOT NULL,
    tenant_id TEXT,
    tenant TEXT,
    key_prefix TEXT,
    key_name TEXT,
    changes TEXT NOT NULL
);

CREATE INDEX admin_actions_by_tenant ON admin_actions (tenant_id, id);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'admin actions are never changed or deleted' USING ERRCODE = 'integrity_constraint_violation';
END
$$;

CREATE TRIGGER admin_actions_kept_as_they_are BEFORE UPDATE OR DELETE OR TRUNCATE ON admin_actions
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
