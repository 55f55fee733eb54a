"""What annotation tools export: whose format a file is, and a small reader for each format."""
