"""The history: every report's figures in one database, SQLite or PostgreSQL.

``database`` opens it, ``record`` adds a report (``file_figures``: what it says of files), ``query``
finds figures, ``runs`` whole runs, ``trends`` makes series, ``changes`` looks for the points where
one changed, ``table_files`` writes CSV and Parquet. ``address`` and ``identity`` are light;
everything else brings SQLAlchemy.
"""
