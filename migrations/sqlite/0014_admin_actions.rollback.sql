DROP TRIGGER admin_actions_kept_for_good;

DROP TRIGGER admin_actions_kept_as_they_are;

DROP INDEX admin_actions_by_tenant;

DROP TABLE admin_actions;
