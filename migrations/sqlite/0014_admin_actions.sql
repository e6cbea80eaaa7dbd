-- What operators did, written with what it changed, in the same transaction: who, when, to whom, what was and
-- what is (JSON). Never a key. Ids sort by time. Nothing here is ever changed or deleted.
CREATE TABLE admin_actions (
    id TEXT NOT NULL PRIMARY KEY,
    at REAL NOT NULL,
    os_user TEXT NOT NULL,
    host TEXT NOT NULL,
    action TEXT NOT NULL,
    tenant_id TEXT,
    tenant TEXT,
    key_prefix TEXT,
    key_name TEXT,
    changes TEXT NOT NULL
) STRICT;

CREATE INDEX admin_actions_by_tenant ON admin_actions (tenant_id, id);

CREATE TRIGGER admin_actions_kept_as_they_are BEFORE UPDATE ON admin_actions
BEGIN SELECT RAISE(ABORT, 'admin actions are never changed'); END;

CREATE TRIGGER admin_actions_kept_for_good BEFORE DELETE ON admin_actions
BEGIN SELECT RAISE(ABORT, 'admin actions are never deleted'); END;
