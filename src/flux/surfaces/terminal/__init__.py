"""The chat in a terminal: `chat.chat` for people, `plain.pipe` for pipes; each loads only what it needs."""
