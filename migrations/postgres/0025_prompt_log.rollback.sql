DROP TABLE prompts;

DROP TABLE prompt_keys;

DROP TRIGGER keys_prompts_updated ON keys;

ALTER TABLE keys
    DROP COLUMN prompt_generation,
    DROP COLUMN log_prompts_s;
