DROP TABLE prompts;

DROP TABLE prompt_keys;

DROP TRIGGER keys_prompts_updated;

ALTER TABLE keys DROP COLUMN prompt_generation;

ALTER TABLE keys DROP COLUMN log_prompts_s;
