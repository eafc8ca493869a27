"""The tools of a file in a process of their own, which holds no key and no database."""
