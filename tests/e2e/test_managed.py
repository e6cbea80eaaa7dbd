"""A gateway under a manager of services that speaks systemd's protocol."""

import signal
from pathlib import Path

from tests.doubles import Double
from tests.gateways import Gateway
from tests.managers import manager_double


def test_its_life_is_told(tmp_path: Path, double: Double):
    """Ready when it serves, not before; a reload begins and ends; the stop is told, and beats go on."""
    with manager_double(tmp_path) as manager:
        gateway = Gateway(
            tmp_path / "managed",
            OLLAMA_BACKENDS=f"double={double.url}",
            NOTIFY_SOCKET=manager.address,
            WATCHDOG_USEC="300000",
        )
        gateway.start()
        try:
            starting = manager.until("READY")
            assert gateway.process is not None
            gateway.process.send_signal(signal.SIGHUP)
            reload = [*manager.until("RELOADING"), *manager.until("READY")]
            gateway.terminate()
            stop = manager.until("STOPPING")
            code = gateway.wait(60)
        finally:
            gateway.stop()

    assert starting[0] == {"WATCHDOG": "1", "EXTEND_TIMEOUT_USEC": "30000000"}
    assert [told for told in reload if "WATCHDOG" not in told][-1] == {"READY": "1", "STATUS": "Serving."}
    assert "0 requests run" in stop[-1]["STATUS"]
    assert code == 0
