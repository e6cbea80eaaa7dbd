DROP TRIGGER admin_actions_kept_as_they_are ON admin_actions;

DROP FUNCTION refuse_change();

DROP INDEX admin_actions_by_tenant;

DROP TABLE admin_actions;
