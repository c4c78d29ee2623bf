"""Operations, their results and their errors, one table for each family of system calls."""
