"""Two tasks to begin with. Run `celeriac dev tasks:app`, and in a second terminal:

celeriac submit count_words text="to be or not to be"
celeriac submit bake loaves=20
"""

import time
from collections import Counter

from celeriac import Celeriac, current

app = Celeriac("tasks")


@app.task(name="count_words")
def count_words(text: str) -> dict[str, int]:
    """Count how often each word occurs in `text`."""
    return dict(Counter(text.lower().split()))


# `cost` measures the input, and picks the queue: small orders wait for no large one.
@app.task(name="bake", cost=lambda loaves: loaves, queues={50: "small", None: "large"})
def bake(loaves: int) -> str:
    """Bake `loaves`, five a second."""
    current.log(f"The oven is hot, {loaves} loaves to go.")
    for _ in current.track(range(loaves), note="baking"):  # progress; obeys a cancel
        time.sleep(0.2)
    return f"{loaves} loaves"
