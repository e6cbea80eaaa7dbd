"""The pipeline: one plain ASGI class per file, composed by `gateway.app`."""
