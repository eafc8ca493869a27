"""A page in the browser to talk to an agent: a thin proxy without state, and the files of the page."""
