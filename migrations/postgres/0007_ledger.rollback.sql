DROP TABLE quarantine;

DROP TABLE sums;

DROP INDEX ledger_of_open_intents;

DROP TABLE ledger;
