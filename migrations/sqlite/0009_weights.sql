-- How much of a busy backend a tenant gets beside others that wait: one with twice the weight is served twice as
-- much.
ALTER TABLE tenants ADD COLUMN weight INTEGER NOT NULL DEFAULT 1 CHECK (weight BETWEEN 1 AND 1000);
