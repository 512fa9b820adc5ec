"""Tables for people, from metrics and Parquet."""
