"""One controller node for test_raft_journal.py: obeys lines of JSON on its standard input and answers each by one."""

import json
import sys
import time
from pathlib import Path

from controller.errors import JournalError
from controller.migration_journal import Viewed, decode_entries, encode_entry
from controller.raft_journal import RaftJournal

own, directory, *others = sys.argv[1:]
journal = RaftJournal(own, others, "a secret of this test", encode_entry, decode_entries, Path(directory))
for line in sys.stdin:
    what, *values = json.loads(line)
    try:
        if what == "status":
            answer = {"leads": journal.leads, "writes": journal.writes}
        elif what == "take over":
            answer = {"run": journal.take_over()}
        elif what == "append":
            started = time.monotonic()
            for epoch in range(*values):
                journal.append(Viewed(1, 2, epoch, "paired", "s1h", "s2h", "", {"s1h": 1}, ("c1",)))
            answer = {"took_s": time.monotonic() - started}
        else:
            answer = {"epochs": [entry.epoch for entry in journal.entries()]}
    except JournalError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer), flush=True)
journal.close()
