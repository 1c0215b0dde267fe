"""A page for the browser, metrics and a health endpoint beside a running inspection."""
