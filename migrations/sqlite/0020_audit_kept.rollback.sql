DROP TRIGGER audit_kept_for_its_time;

DROP TRIGGER audit_kept_as_it_is;
