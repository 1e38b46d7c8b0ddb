"""memlib in other people's systems, each an extra that is imported where it is used."""
