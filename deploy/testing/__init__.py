"""All of compose.yaml, brought up on a real container engine and tried from outside: `make test-deploy`."""
