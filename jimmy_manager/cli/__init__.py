"""The command ``jimmy``: click, one module a command group, each imported only when its command is used."""
