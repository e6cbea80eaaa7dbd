-- Public model names that stand for a model with options and limits (formats.profiles). By canonical name;
-- options are JSON objects by Ollama's names, times are seconds. A change is seen by running gateways as one of
-- tenants and keys is: by the revision.
CREATE TABLE model_profiles (
    known_as TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    model TEXT NOT NULL,
    created_at DOUBLE PRECISION NOT NULL,
    options TEXT NOT NULL,
    presets TEXT NOT NULL,
    max_num_ctx BIGINT,
    max_output_tokens BIGINT,
    keep_alive_s DOUBLE PRECISION,
    first_byte_s DOUBLE PRECISION,
    chunk_gap_s DOUBLE PRECISION,
    answer_s DOUBLE PRECISION
);

CREATE TRIGGER model_profiles_changed AFTER INSERT OR UPDATE OR DELETE ON model_profiles
FOR EACH ROW EXECUTE FUNCTION raise_revision();
