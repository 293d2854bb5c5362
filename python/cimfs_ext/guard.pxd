"""The one rule that keeps calls on an object apart: what would free or change what another call uses is refused.

Each object counts the calls under way, under the GIL. Nobody waits and nothing is locked, so a callback, a finalizer
or a signal handler that runs inside a call gets the same error as another thread does.
"""

cdef inline int check_idle(int busy, str name, str kind) except -1:
    if busy:
        raise RuntimeError(f"{name}: the {kind} is in use")
    return 0
