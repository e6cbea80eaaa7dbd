"""Migrations of the database, one folder a dialect: one step a file, each with its rollback.

This top-level folder is the package `gateway.migrations`, in a checkout as in a wheel. File names are the
ids that a database remembers as applied: never rename, remove or edit a file that was released.
"""
