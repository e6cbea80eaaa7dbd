"""Settings: what they read as, and that every mistake is told at once."""

import ipaddress
from pathlib import Path

import pytest

from gateway.config import SETTINGS, Address, BackendConfig, ConfigError, load, parse

SECRET = "0123456789abcdef" * 4


def mistakes_of(**values: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(values)
    return caught.value.mistakes


def test_everything_has_a_default():
    config = parse({})

    assert config.database_url == "sqlite:///data/gateway.db"
    assert config.bind == Address("127.0.0.1", 8080)
    assert config.backends == (BackendConfig("127.0.0.1:11434", "http://127.0.0.1:11434"),)
    assert config.secret is None
    assert config.max_body_bytes == 20 * 1024 * 1024
    assert config.drain_s == 120


def test_an_unknown_setting_is_refused_with_the_nearest_known_name():
    """A typo in a limit must not mean "no limit"."""
    assert mistakes_of(GATEWAY_BNID="x") == ["unknown setting 'GATEWAY_BNID'; did you mean GATEWAY_BIND?"]


def test_all_mistakes_are_told_at_once():
    mistakes = mistakes_of(GATEWAY_BIND="8080", GATEWAY_DRAIN_S="-1", GATEWAY_LOG_LEVEL="loud")

    assert len(mistakes) == 3
    assert mistakes[0] == (
        "GATEWAY_BIND is '8080', but not usable: it takes an address and a port, such as 127.0.0.1:8080."
    )


def test_the_address_for_operators_can_be_off_and_is_never_that_of_callers():
    assert parse({}).ops_bind == Address("127.0.0.1", 9090)
    assert parse({"GATEWAY_OPS_BIND": "off"}).ops_bind is None
    (mistake,) = mistakes_of(GATEWAY_OPS_BIND="127.0.0.1:8080")

    assert mistake.startswith("GATEWAY_OPS_BIND is the same as GATEWAY_BIND")


def test_a_collector_is_an_address_without_credentials():
    assert parse({}).collector is None
    assert parse({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel:4318/"}).collector == "http://otel:4318"
    assert mistakes_of(OTEL_EXPORTER_OTLP_ENDPOINT="grpc://otel:4317")
    assert "hunter2" not in mistakes_of(OTEL_EXPORTER_OTLP_ENDPOINT="http://user:hunter2@otel")[0]


def test_redis_is_read_strictly_and_its_password_never_printed():
    config = parse({"REDIS_URL": "redis://:hunter2@cache:7000", "GATEWAY_SECRET": SECRET})
    (mistake,) = mistakes_of(REDIS_URL="redis://:hunter2@a,b", GATEWAY_SECRET=SECRET)

    assert config.redis is not None
    assert config.redis.hosts == (("cache", 7000),)
    assert "hunter2" not in repr(config)
    assert mistake.startswith("REDIS_URL is not usable: it takes one host;")
    assert "hunter2" not in mistake


def test_a_fleet_needs_a_secret_that_all_of_it_knows():
    """Each gateway would make one of its own, and refuse the keys of the others."""
    (mistake,) = mistakes_of(REDIS_URL="redis://cache")

    assert mistake.startswith("GATEWAY_SECRET is not set")


@pytest.mark.parametrize("value", ["nan", "inf", "0", "-1", "ten", ""])
def test_a_time_is_a_number_above_zero(value: str):
    if value:
        assert mistakes_of(GATEWAY_DRAIN_S=value)
    else:
        assert parse({"GATEWAY_DRAIN_S": value}).drain_s == 120, "empty means the default"


def test_a_secret_is_never_printed():
    """Not when it is refused, and not with the whole configuration."""
    assert mistakes_of(GATEWAY_SECRET="hunter2")[0].startswith("GATEWAY_SECRET is not usable")
    assert "hunter2" not in mistakes_of(GATEWAY_SECRET="hunter2")[0]
    assert "0123456789abcdef" not in repr(parse({"GATEWAY_SECRET": SECRET}))


@pytest.mark.parametrize("sample", ["changeme" * 8, "a" * 64, "your-secret-here-" * 4, "short"])
def test_a_sample_is_no_secret(sample: str):
    assert mistakes_of(GATEWAY_SECRET=sample)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://a:1", BackendConfig("a:1", "http://a:1")),
        ("http://a:1/", BackendConfig("a:1", "http://a:1")),
        ("gpu=https://a;kind=openai", BackendConfig("gpu", "https://a", "openai")),
        ("gpu=http://a:1;kind=ollama;key-env=TOKEN", BackendConfig("gpu", "http://a:1", "ollama", "s3cret")),
        ("http://a:1;slots=2;weight=3", BackendConfig("a:1", "http://a:1", slots=2, weight=3)),
        ("http://a:1; drain=yes", BackendConfig("a:1", "http://a:1", is_draining=True)),
        ("http://a:1;drain=no", BackendConfig("a:1", "http://a:1")),
    ],
)
def test_a_backend_is_read(text: str, expected: BackendConfig):
    assert parse({"OLLAMA_BACKENDS": text, "TOKEN": "s3cret"}).backends == (expected,)


@pytest.mark.parametrize(
    "text",
    ["a:1", "ftp://a", "http://a/path", "http://user:pw@a", "http://a;kind=vllm", "http://a;slot=1",
     "http://a;key-env=UNSET", "http://a,http://a", "http://", "http://a;slots=0", "http://a;slots=-1",
     "http://a;slots=", "http://a;weight=1.5", "http://a;weight=1001", "http://a;slots=²", "http://a;drain=maybe",
     "http://a;slots=1;slots=2"],
)  # fmt: skip
def test_a_backend_that_cannot_be_meant_is_refused(text: str):
    mistakes = mistakes_of(OLLAMA_BACKENDS=text)

    assert mistakes[0].startswith("OLLAMA_BACKENDS entry")
    assert "pw" not in mistakes[0]


def test_networks_and_hosts_are_lists():
    config = parse({"GATEWAY_TRUSTED_PROXIES": "10.0.0.0/8, ::1", "GATEWAY_ALLOWED_HOSTS": "A.example, b"})

    assert config.trusted_proxies == (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1/128"))
    assert config.allowed_hosts == {"a.example", "b"}


@pytest.mark.parametrize(
    "values",
    [
        {"DATABASE_URL": "mysql://localhost/x"},
        {"DATABASE_URL": "sqlite:///x.db?mode=ro"},
        {"DATABASE_URL": "postgresql://gw:pw@db/gateway?connect_timeout=5", "GATEWAY_SECRET": SECRET},
        {"DATABASE_URL": "postgresql://gw:pw@db/gateway"},
        {"GATEWAY_TRUSTED_PROXIES": "everyone"},
        {"GATEWAY_SPOOL_MAX_BYTES": "16777215"},
    ],
)
def test_what_this_version_cannot_honour_is_refused(values: dict[str, str]):
    """A setting that is silently ignored is a limit that silently does not hold."""
    assert len(mistakes_of(**values)) == 1


def test_the_environment_wins_over_the_file(tmp_path: Path):
    env_file = tmp_path / ".env"
    env_file.write_text(
        "GATEWAY_BIND=127.0.0.1:1\nGATEWAY_DRAIN_S='7' # seconds\nexport GATEWAY_LOG_LEVEL=debug\n"
    )

    config = load(env_file, {"GATEWAY_BIND": "127.0.0.1:2", "PATH": "/bin"})

    assert (config.bind.port, config.drain_s, config.log_level) == (2, 7, "DEBUG")


def test_secrets_come_from_files_too(tmp_path: Path):
    """As container engines mount them; the newline at the end of such a file is nobody's secret."""
    secret, url, key = (tmp_path / name for name in ("secret", "url", "key"))
    secret.write_text(f"{SECRET}\n")
    url.write_text("postgresql://gw:pw@db/gateway\n")
    key.write_text("s3cret")
    env_file = tmp_path / ".env"
    env_file.write_text(f"GATEWAY_SECRET_FILE={secret}\nDATABASE_URL=sqlite:///x.db\n")

    config = load(
        env_file,
        {
            "DATABASE_URL_FILE": str(url),
            "OLLAMA_BACKENDS": "http://a:1;kind=openai;key-env=VLLM_KEY",
            "VLLM_KEY_FILE": str(key),
        },
    )

    assert config.secret == SECRET
    assert config.database_url == "postgresql://gw:pw@db/gateway", "the environment goes over .env"
    assert config.backends[0].credential == "s3cret"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("absent", None, "No such file or directory"),
        ("empty", b"\n", "the file is empty"),
        ("binary", b"\xff\xfe" + SECRET.encode(), "the file is not UTF-8"),
    ],
)
def test_a_secret_that_cannot_be_read_from_its_file_is_a_mistake(
    tmp_path: Path, name: str, content: bytes | None, reason: str
):
    """Without it, a gateway would start with a default that nobody meant."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ConfigError) as caught:
        load(tmp_path / ".env", {"GATEWAY_SECRET_FILE": str(path)})

    assert caught.value.mistakes == [f"GATEWAY_SECRET_FILE is {str(path)!r}, but not usable: {reason}."]


def test_a_secret_and_its_file_at_once_are_a_mistake(tmp_path: Path):
    (tmp_path / "secret").write_text(SECRET)

    with pytest.raises(ConfigError, match="its value is set beside it"):
        load(
            tmp_path / ".env",
            {"GATEWAY_SECRET": SECRET, "GATEWAY_SECRET_FILE": str(tmp_path / "secret")},
        )


def test_only_secrets_come_from_files(tmp_path: Path):
    """What a file is read for is a short list; and other programs' variables end with _FILE, too."""
    assert load(tmp_path / ".env", {"SSL_CERT_FILE": "/nowhere"}).secret is None
    with pytest.raises(ConfigError, match="unknown setting 'GATEWAY_BIND_FILE'; did you mean GATEWAY_BIND"):
        load(tmp_path / ".env", {"GATEWAY_BIND_FILE": "/nowhere"})


def test_the_name_that_compose_reads_is_no_typo():
    """One .env may serve compose and the gateway."""
    assert parse({"GATEWAY_DOMAIN": "llm.example.com"}) == parse({})


@pytest.mark.parametrize("document", ["README.md", ".env.example"])
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_setting_is_documented(document: str, setting):
    """The table in README and the sample file name each setting, with its default and what it is for."""
    text = (Path(__file__).parent.parent / document).read_text()

    assert setting.name in text
    assert setting.meaning in text
    assert setting.default in text
