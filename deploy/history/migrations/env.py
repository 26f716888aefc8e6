"""Alembic's entry: runs within the transaction of the connection that it is handed."""

from alembic import context

from deploy.history.tables import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
)
context.run_migrations()
