"""Raw video -> subject folder: one stage per file, named for what it writes (command: data_utils.process)."""
