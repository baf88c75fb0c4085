"""What both rivals read: sequences of items, as benches/common/mod.rs writes them."""

import numpy as np


def read(path):
    """Returns the number of items and one array of item numbers per person, oldest first."""
    raw = np.fromfile(path, dtype="<u4")
    people, items = int(raw[0]), int(raw[1])
    offsets = raw[2 : people + 3].astype(np.int64)
    events = raw[people + 3 :].astype(np.int64)
    return items, [events[a:z] for a, z in zip(offsets[:-1], offsets[1:])]


def peak_memory():
    """The most memory that this process has held so far, in bytes; 0 where the system does not tell."""
    try:
        with open("/proc/self/status") as status:
            line = next(line for line in status if line.startswith("VmHWM:"))
            return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        return 0
