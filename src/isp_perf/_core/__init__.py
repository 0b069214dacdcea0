"""Pure decisions and data: no clock, lock, I/O, loop, thread, chance, log or third party; ``now`` is an argument."""
