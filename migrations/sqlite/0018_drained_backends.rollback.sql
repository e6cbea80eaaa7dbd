DROP TABLE drained_backends;
