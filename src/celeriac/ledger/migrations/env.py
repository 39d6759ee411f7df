"""Alembic's entry: runs the migrations on the connection that `upgrade` hands over.

Never run by hand; see `celeriac migrate`.
"""

from alembic import context

from celeriac.ledger.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=False)
context.run_migrations()
