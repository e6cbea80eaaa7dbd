"""What one process lacks, by what its adapters know."""

from pathlib import Path

from gateway.config import parse
from gateway.resources import Resources


def test_what_backends_lack_is_told_without_their_addresses(tmp_path: Path):
    """/readyz is for everyone: a backend that was given no name goes by its number."""
    resources = Resources(
        parse(
            {
                "OLLAMA_BACKENDS": "gpu=http://10.0.0.7:1,http://10.0.0.8:11434;drain=yes",
                "GATEWAY_DATA_DIR": str(tmp_path),
                "DATABASE_URL": f"sqlite:///{tmp_path}/gateway.db",
            }
        )
    )

    assert resources.backends_lacking() == {"gpu": ["reach"], "backend-2": ["reach", "service"]}
