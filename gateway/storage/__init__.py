"""What is kept in the database: adapters behind `gateway.ports`."""
