-- Public model names that stand for a model with options and limits (formats.profiles). By canonical name;
-- options are JSON objects by Ollama's names, times are seconds. A change is seen by running gateways as one of
-- tenants and keys is: by the revision.
CREATE TABLE model_profiles (
    known_as TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    model TEXT NOT NULL,
    created_at REAL NOT NULL,
    options TEXT NOT NULL,
    presets TEXT NOT NULL,
    max_num_ctx INTEGER,
    max_output_tokens INTEGER,
    keep_alive_s REAL,
    first_byte_s REAL,
    chunk_gap_s REAL,
    answer_s REAL
) STRICT;

CREATE TRIGGER model_profiles_inserted AFTER INSERT ON model_profiles
BEGIN UPDATE revision SET value = value + 1; END;

CREATE TRIGGER model_profiles_updated AFTER UPDATE ON model_profiles
BEGIN UPDATE revision SET value = value + 1; END;

CREATE TRIGGER model_profiles_deleted AFTER DELETE ON model_profiles
BEGIN UPDATE revision SET value = value + 1; END;
