"""A process of many threads that claim one approval at the same moment; prints how many won."""

import sys
import threading
import time

from ascend_middleware.state.redis import RedisState
from ascend_middleware.state.sqlite import SQLState

place, handle, name, threads, start = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5])
kind = RedisState if place.startswith("redis://") else SQLState
wins = []


def race(number):
    state = kind(place, scope="race", timeout=60.0)
    by = f"{name}-{number}"
    time.sleep(max(0.0, start - time.time()))
    row = state.claim(handle, by=by, process=name, entry="{}", now=time.time())
    if row.claimed_by == by:
        wins.append(by)
    state.close()


racers = [threading.Thread(target=race, args=(number,)) for number in range(threads)]
for racer in racers:
    racer.start()
for racer in racers:
    racer.join()
print(len(wins))
